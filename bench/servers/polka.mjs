import polka from 'polka';
import { announce } from './announce.mjs';

const app = polka().get('/', (_request, response) => {
  const body = JSON.stringify({ hello: 'world' });
  response.writeHead(200, {
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': Buffer.byteLength(body),
  });
  response.end(body);
});
app.listen(0, '127.0.0.1', () => announce(app.server));
