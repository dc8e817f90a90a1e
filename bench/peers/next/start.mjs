// `next start`, after the time that the conformance suite asks for.
import { createRequire } from 'node:module';
import { startDelay } from '../../../test/conformance/routes.mjs';

process.chdir(import.meta.dirname);
await startDelay();
process.argv = [process.argv[0], 'next', 'start', '-p', process.env.PORT, '-H', '127.0.0.1'];
createRequire(import.meta.url)('next/dist/bin/next');
