// Express 4 as its documentation has it.
import express from 'express4';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

const app = express();
app.get('/', (_request, response) => response.send('hello\n'));
app.get('/slow', (request, response) => setTimeout(() => response.send('slow\n'), Number(request.query.ms)));
app.post('/upload', express.raw({ type: () => true, limit: '100mb' }), (request, response) => {
  response.send(`${request.body?.length ?? 0}\n`);
});
app.use((request, response) => handle(request, response));
await startDelay();
app.listen(Number(process.env.PORT), '127.0.0.1');
