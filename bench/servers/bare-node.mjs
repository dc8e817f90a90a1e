import { createServer } from 'node:http';

export default () =>
  createServer((_request, response) => {
    const body = JSON.stringify({ hello: 'world' });
    response.writeHead(200, {
      'Content-Type': 'application/json; charset=utf-8',
      'Content-Length': Buffer.byteLength(body),
    });
    response.end(body);
  });
