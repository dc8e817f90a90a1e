// Fastify as its documentation has it.
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import Fastify from 'fastify';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

const app = Fastify();
app.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
app.get('/', () => 'hello\n');
app.get('/slow', async ({ query }) => {
  await delay(Number(query.ms));
  return 'slow\n';
});
app.get('/stream', ({ query }, reply) => reply.send(Readable.from(stream(Number(query.ms)))));
app.get('/large', (_request, reply) => reply.send(Buffer.alloc(20 * 1024 * 1024, 'x')));
app.post('/upload', async ({ body }) => {
  let bytes = 0;
  for await (const chunk of body) bytes += chunk.length;
  return `${bytes}\n`;
});
for (const path of ['/block', '/hang']) {
  app.get(path, (request, reply) => {
    reply.hijack();
    handle(request.raw, reply.raw);
  });
}

async function* stream(ms) {
  yield Buffer.from('first\n');
  await delay(ms);
  yield Buffer.from('last\n');
}

await startDelay();
await app.listen({ port: Number(process.env.PORT) });
