// node:http as its documentation has it, without a line about stopping.
import { createServer } from 'node:http';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

await startDelay();
createServer(handle).listen(Number(process.env.PORT), '127.0.0.1');
