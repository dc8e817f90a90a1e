// Hono on its adapter for Node, as its documentation has it.
import { setTimeout as delay } from 'node:timers/promises';
import { serve } from '@hono/node-server';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import { Hono } from 'hono';
import { stream } from 'hono/streaming';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

const app = new Hono();
app.get('/', (c) => c.text('hello\n'));
app.get('/slow', async (c) => {
  await delay(Number(c.req.query('ms')));
  return c.text('slow\n');
});
app.get('/stream', (c) =>
  stream(c, async (out) => {
    await out.write('first\n');
    await delay(Number(c.req.query('ms')));
    await out.write('last\n');
  }),
);
app.get('/large', (c) => c.body('x'.repeat(20 * 1024 * 1024)));
app.post('/upload', async (c) => c.text(`${(await c.req.arrayBuffer()).byteLength}\n`));
for (const path of ['/block', '/hang']) {
  app.get(path, (c) => {
    handle(c.env.incoming, c.env.outgoing);
    return RESPONSE_ALREADY_SENT;
  });
}
await startDelay();
serve({ fetch: app.fetch, port: Number(process.env.PORT) });
