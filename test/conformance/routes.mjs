// The routes that the suite asks for, as a plain (request, response) function for any server on node:http.
/** Nobody changes it: to wait for that stands the event loop still. */
const CELL = new Int32Array(new SharedArrayBuffer(4));
const LARGE = Buffer.alloc(20 * 1024 * 1024, 'x');

/** Waits as long as START_DELAY_MS says, as a server does that opens a database before it listens. */
export async function startDelay() {
  if (process.env.START_DELAY_MS === undefined) return;
  console.log('starting');
  await new Promise((resolve) => setTimeout(resolve, Number(process.env.START_DELAY_MS)));
}

export function handle(request, response) {
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost');
  const ms = Number(searchParams.get('ms'));
  if (pathname === '/') response.writeHead(200, { 'Content-Length': 6 }).end('hello\n');
  else if (pathname === '/slow') setTimeout(() => response.end('slow\n'), ms);
  else if (pathname === '/stream') {
    response.write('first\n');
    setTimeout(() => response.end('last\n'), ms);
  } else if (pathname === '/block') {
    response.flushHeaders();
    Atomics.wait(CELL, 0, 0, ms);
    response.end('last\n');
  } else if (pathname === '/large') response.end(LARGE);
  else if (pathname === '/upload') {
    let bytes = 0;
    request.on('data', (chunk) => {
      bytes += chunk.length;
    });
    request.on('end', () => response.end(`${bytes}\n`));
  } else if (pathname !== '/hang') {
    response.statusCode = 404;
    response.end();
  }
}
