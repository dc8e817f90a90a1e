// As the documentation of Node and of Express has it: stop accepting, and end when the last connection is gone.
import { createServer } from 'node:http';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

const server = createServer(handle);
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => server.close());
await startDelay();
server.listen(Number(process.env.PORT));
