// Ends at the signal, without a thought for its clients: what this takes is the kernel's share of every stop.
import { createServer } from 'node:http';

process.on('SIGTERM', () => process.exit());
createServer((_request, response) => response.end('hello\n')).listen(Number(process.env.PORT), '127.0.0.1');
