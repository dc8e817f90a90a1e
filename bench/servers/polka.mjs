import { createServer } from 'node:http';
import polka from 'polka';

export default () => {
  const app = polka().get('/', (_request, response) => {
    const body = JSON.stringify({ hello: 'world' });
    response.writeHead(200, {
      'Content-Type': 'application/json; charset=utf-8',
      'Content-Length': Buffer.byteLength(body),
    });
    response.end(body);
  });
  return createServer(app.handler);
};
