// A shutdown handler that closes the server; its own health checks on a port that the system chooses.
import { createServer } from 'node:http';
import { createLightship } from 'lightship';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

const timeoutMs = Number(process.env.SHUTDOWN_TIMEOUT) * 1000;
const lightship = await createLightship({
  signals: ['SIGTERM', 'SIGINT'],
  gracefulShutdownTimeout: timeoutMs,
  shutdownHandlerTimeout: timeoutMs,
});
await startDelay();
const server = createServer(handle);
lightship.registerShutdownHandler(() => new Promise((resolve) => server.close(resolve)));
server
  .listen(Number(process.env.PORT), () => lightship.signalReady())
  .on('error', (error) => {
    console.error(error.message);
    void lightship.shutdown();
  });
