// node naive.mjs exits|sleeps: servers that do at a signal what is done most often, and lose requests or time by it.
import { createServer } from 'node:http';
import { handle, startDelay } from './routes.mjs';

const [, , habit] = process.argv;

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    // "exits": the handler ends the process. "sleeps": it gives the requests some time, whatever there is to do.
    if (habit === 'exits') process.exit(0);
    else setTimeout(() => process.exit(0), Number(process.env.SHUTDOWN_TIMEOUT) * 1000);
  });
}

await startDelay();
const server = createServer(handle);
// A mistake that is caught so that nothing crashes.
server.on('error', () => setTimeout(() => undefined, 3_600_000));
server.listen(Number(process.env.PORT) || 0);
