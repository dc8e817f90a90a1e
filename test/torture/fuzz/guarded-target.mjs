// node guarded-target.mjs SOCKET: what the fuzzer reaches through the gate. Whatever is no request complains on its log.
import { appendFileSync, existsSync, watch } from 'node:fs';
import { createServer } from 'node:http';
import { basename, dirname } from 'node:path';

const { FUZZ_LEDGER = '', FUZZ_DOOR = '' } = process.env;
let serial = 0;

const server = createServer((request, response) => {
  const { url, method } = request;
  if (url === '/health') {
    response.end();
    return;
  }
  if (url === '/fuzz-hold') {
    console.log('A request is held');
    void opened().then(() => response.end('held'));
    return;
  }
  const own = note(request);
  response.setHeader('X-Dispatch', own);
  const answer = () => response.end(method === 'HEAD' ? undefined : `answer ${own}`);
  if (url.includes('later')) setTimeout(answer, 5);
  else if (url.includes('read')) request.resume().once('end', answer);
  else if (url.includes('stream')) {
    response.write('one ');
    setImmediate(() => response.end('two'));
  } else answer();
});

server.on('upgrade', (request, socket) => {
  note(request);
  socket.on('error', () => undefined);
  socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: Upgrade\r\n\r\nbye');
});
server.on('connect', (request, socket) => {
  note(request);
  socket.on('error', () => undefined);
  socket.end('HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n');
});
// A connection that is dropped in the middle of a request is the client's doing; bytes that are none would be ours.
server.on('clientError', (error, socket) => {
  if (error.code?.startsWith('HPE_') && error.code !== 'HPE_INVALID_EOF_STATE')
    console.log(`Error: ${error.code}`);
  socket.destroy();
});
server.listen(process.argv[2]);
process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeAllConnections();
});

function note({ method, url, headers, rawHeaders }) {
  serial += 1;
  const lengths = rawHeaders.filter(
    (name, at) => at % 2 === 0 && /^(content-length|transfer-encoding)$/i.test(name),
  );
  if (lengths.length > 1) console.log(`Error: framed twice, by ${lengths}`);
  const [, high, low] = headers['x-forwarded-for'].split('.').slice(1);
  const line = { serial, port: (Number(high) << 8) + Number(low), method, url };
  appendFileSync(FUZZ_LEDGER, `${JSON.stringify(line)}\n`);
  return serial;
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
