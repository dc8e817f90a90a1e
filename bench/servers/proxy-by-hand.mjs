// node proxy-by-hand.mjs undici|node: what passing on takes at least, without any of the promises. PROGRAM_PORT is where to.
import { Agent, request as ask, createServer } from 'node:http';
import { Pool } from 'undici';

const { PORT, PROGRAM_PORT } = process.env;
const [, , client] = process.argv;
const pool = new Pool(`http://127.0.0.1:${PROGRAM_PORT}`, { headersTimeout: 0, bodyTimeout: 0 });
const agent = new Agent({ keepAlive: true });
const HOP = new Set(['connection', 'keep-alive', 'transfer-encoding']);

function endToEnd(raw) {
  const head = [];
  for (let at = 0; at < raw.length; at += 2)
    if (!HOP.has(raw[at].toLowerCase())) head.push(raw[at], raw[at + 1]);
  return head;
}

const BY = {
  undici: ({ method, url: path, rawHeaders }, response) =>
    pool.dispatch(
      { method, path, headers: endToEnd(rawHeaders) },
      {
        onConnect: () => undefined,
        onHeaders: (status, raw) => {
          response.writeHead(status, endToEnd(raw.map((text) => text.toString('latin1'))));
          return true;
        },
        onData: (chunk) => response.write(chunk),
        onComplete: () => response.end(),
        onError: () => response.destroy(),
      },
    ),
  node: ({ method, url: path, rawHeaders }, response) =>
    ask(
      { host: '127.0.0.1', port: PROGRAM_PORT, method, path, headers: endToEnd(rawHeaders), agent },
      (answer) => {
        response.writeHead(answer.statusCode, endToEnd(answer.rawHeaders));
        answer.pipe(response);
      },
    )
      .on('error', () => response.destroy())
      .end(),
};

const server = createServer(BY[client]).listen(Number(PORT), '127.0.0.1', () =>
  console.log(`Accepting requests on http://127.0.0.1:${server.address().port}`),
);
