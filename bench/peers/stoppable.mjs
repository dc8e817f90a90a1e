// The grace in milliseconds; the call-back is told whether it was needed.
import { createServer } from 'node:http';
import stoppable from 'stoppable';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

const server = stoppable(createServer(handle), Number(process.env.SHUTDOWN_TIMEOUT) * 1000);
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => server.stop((_error, gracefully) => process.exit(gracefully ? 0 : 1)));
}
await startDelay();
server.listen(Number(process.env.PORT));
