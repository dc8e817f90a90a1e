// What the fuzzer sends its requests to: writes down each dispatch before anything else, then answers.
import { appendFileSync, existsSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { defineApp } from 'master-agent';

const { FUZZ_LEDGER = '', FUZZ_DOOR = '' } = process.env;
let serial = 0;

export default defineApp({
  routes(router) {
    // Keeps the service draining until the fuzzer has seen enough.
    router.get('/fuzz-hold', async (_request, response, { log }) => {
      log.info('A request is held');
      await opened();
      response.end('held');
    });
    router.upgrade('/chat', (request, socket) => {
      serial += 1;
      note(request, serial);
      socket.on('error', () => undefined);
      socket.end(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: Upgrade\r\n\r\nbye`);
    });
    router.mount('/', (request, response) => {
      serial += 1;
      const own = serial;
      note(request, own);
      const answer = () => {
        response.setHeader('X-Dispatch', own);
        response.end(request.method === 'HEAD' ? undefined : `answer ${own}`);
      };
      if (request.url.includes('later')) setTimeout(answer, 5);
      else if (request.url.includes('read')) request.resume().once('end', answer);
      else if (request.url.includes('stream')) {
        response.setHeader('X-Dispatch', own);
        response.write('one ');
        setImmediate(() => response.end('two'));
      } else answer();
    });
  },
});

function note(request, own) {
  const { method, url } = request;
  const line = { serial: own, port: request.socket.remotePort, method, url: request.originalUrl ?? url };
  appendFileSync(FUZZ_LEDGER, `${JSON.stringify(line)}\n`);
}

function opened() {
  return new Promise((resolve) => {
    const look = () => {
      if (!existsSync(FUZZ_DOOR)) return;
      watcher.close();
      resolve();
    };
    const watcher = watch(dirname(FUZZ_DOOR), (_event, name) => name === basename(FUZZ_DOOR) && look());
    look();
  });
}
