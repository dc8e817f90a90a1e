// It takes SIGTERM and SIGINT by itself, and ends the process.
import { createServer } from 'node:http';
import gracefulShutdown from 'http-graceful-shutdown';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

const server = createServer(handle);
gracefulShutdown(server, { timeout: Number(process.env.SHUTDOWN_TIMEOUT) * 1000 });
await startDelay();
server.listen(Number(process.env.PORT));
