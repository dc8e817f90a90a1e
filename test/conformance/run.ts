/** `npm run conformance`. README.md beside it says what it is for and how to read what it prints. */
import { conformance, EXIT_CANNOT_RUN } from './command.ts';

// Ctrl-C ends the suite in the way that ends the servers too.
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => process.exit(EXIT_CANNOT_RUN));

process.exitCode = await conformance(process.argv.slice(2), {
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
});
