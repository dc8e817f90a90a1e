import t, { type Test } from 'tap';
import { helpText } from '../../src/cli/help.ts';
import { version } from '../../src/version.ts';
import { ServiceProcess } from '../support/service-process.ts';

/** Runs command lines at the same time. For each: the exit code, and what was written. */
async function ended(
  t: Test,
  ...commandLines: readonly string[]
): Promise<(readonly [number | null, string])[]> {
  return Promise.all(
    commandLines.map(async (line) => {
      const child = ServiceProcess.spawn(t, { args: line.split(' ') });
      const { code } = await child.exited;
      return [code, `${child.output}\n`] as const;
    }),
  );
}

t.test('help and version are told, and nothing is started for it', async (t) => {
  t.match(version, /^\d+\.\d+\.\d+/);
  t.match(await ended(t, '--help', 'help', '--version', 'stop --help', 'status -h'), [
    [0, helpText()],
    [0, helpText()],
    [0, `${version}\n`],
    [0, /^usage: master-agent stop\n[\s\S]*exit:/],
    [0, /^usage: master-agent status \[--json\] \[--watch\]\n[\s\S]*exit:/],
  ]);
});

t.test('what cannot be understood is bad configuration', async (t) => {
  t.match(await ended(t, '--bogus', 'one.mjs two.mjs', 'stop it', 'constructor'), [
    [78, /^master-agent: Unknown option '--bogus'.* \(see master-agent --help\)\n$/],
    [78, 'master-agent: want one application, got one.mjs two.mjs (see master-agent --help)\n'],
    [78, /^master-agent: Unexpected argument 'it'.* \(see master-agent --help\)\n$/],
    // What is no command is an application, whatever its name.
    [78, /^FATAL: APP: want the path of an ES module, got "constructor" \(no such file\)$/m],
  ]);
});
