import { conformance, EXIT_CANNOT_RUN } from './command.ts';

/** The suite as a command. @returns the exit code: 0 all pass, 1 some fail, 2 it could not be run */
export function run(args: readonly string[]): Promise<number> {
  // Ctrl-C ends the suite in the way that ends the servers too: they are killed when the process exits.
  const interrupted = new Promise<number>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(EXIT_CANNOT_RUN));
  });
  const judged = conformance(args, {
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
  });
  return Promise.race([interrupted, judged]);
}
