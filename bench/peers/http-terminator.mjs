import { createServer } from 'node:http';
import { createHttpTerminator } from 'http-terminator';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

const server = createServer(handle);
const httpTerminator = createHttpTerminator({
  server,
  gracefulTerminationTimeout: Number(process.env.SHUTDOWN_TIMEOUT) * 1000,
});
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, async () => {
    await httpTerminator.terminate();
    process.exit(0);
  });
}
await startDelay();
server.listen(Number(process.env.PORT));
