import { handle } from '../../../../../test/conformance/routes.mjs';
export const config = { api: { bodyParser: false, externalResolver: true, responseLimit: false } };
export default function handler(request, response) {
  handle(request, response);
}
