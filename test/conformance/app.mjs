// The routes that the suite asks for, as an application of ours: the control that has to pass every scenario.
import { setTimeout as delay } from 'node:timers/promises';

/** Nobody changes it: to wait for that stands the event loop still. */
const CELL = new Int32Array(new SharedArrayBuffer(4));
const LARGE = Buffer.alloc(20 * 1024 * 1024, 'x');

export default {
  async start() {
    if (process.env.START_DELAY_MS === undefined) return;
    console.log('starting');
    await delay(Number(process.env.START_DELAY_MS));
  },
  routes(router) {
    router.get('/', (_request, response) => response.writeHead(200, { 'Content-Length': 6 }).end('hello\n'));
    router.get('/slow', async (_request, response, { query }) => {
      await delay(Number(query.get('ms')));
      response.end('slow\n');
    });
    router.get('/stream', async (_request, response, { query }) => {
      response.write('first\n');
      await delay(Number(query.get('ms')));
      response.end('last\n');
    });
    router.get('/block', (_request, response, { query }) => {
      response.flushHeaders();
      Atomics.wait(CELL, 0, 0, Number(query.get('ms')));
      response.end('last\n');
    });
    router.get('/large', (_request, response) => response.end(LARGE));
    router.get('/hang', () => undefined);
    router.post('/upload', async (request, response) => {
      let bytes = 0;
      for await (const chunk of request) bytes += chunk.length;
      response.end(`${bytes}\n`);
    });
  },
};
