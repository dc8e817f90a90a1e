import { createServer } from 'node:http';
import { createTerminus } from '@godaddy/terminus';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

const server = createServer(handle);
createTerminus(server, {
  signals: ['SIGTERM', 'SIGINT'],
  timeout: Number(process.env.SHUTDOWN_TIMEOUT) * 1000,
  healthChecks: { '/healthcheck': () => Promise.resolve() },
  onSignal: () => Promise.resolve(),
});
await startDelay();
server.listen(Number(process.env.PORT));
