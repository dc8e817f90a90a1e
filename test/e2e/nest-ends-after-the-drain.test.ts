import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { blocksOf, installInto } from '../support/documents.ts';
import { INSTALL, need } from '../support/need.ts';
import { MAIN, tempDir } from '../support/service-process.ts';

/** The Nest application of the documents, with the hooks that raise a signal again once they are done. */
function nest(t: Test): string {
  const dir = tempDir(t);
  for (const { note, text } of blocksOf('docs/application.md')) {
    const hooked = text
      .replace('await nest.init();', 'nest.enableShutdownHooks();\n    await nest.init();')
      .replace(
        'export class AppModule {',
        'export class AppModule {\n  onApplicationShutdown(signal) { console.log("Nest ends by", signal); }',
      );
    if (['nest.mjs', 'app.module.mjs'].includes(note)) writeFileSync(join(dir, note), hooked);
  }
  installInto(dir, ['@nestjs/common', '@nestjs/core', '@nestjs/platform-express', 'reflect-metadata']);
  return dir;
}

for (const workers of [0, 2]) {
  t.test(`one Ctrl-C on a terminal, WORKERS=${workers}: Nest's shutdown hooks cut nothing`, async (t) => {
    need('script', INSTALL.script);
    const cwd = nest(t);
    const env = { ...process.env, PORT: '0', OPS_PORT: '0', WORKERS: String(workers), HOST: '127.0.0.1' };
    // A shell that stays would end by the Ctrl-C itself.
    const command = `exec '${process.execPath}' '${MAIN}' nest.mjs`;
    const terminal = spawn('script', ['-qefc', command, '/dev/null'], {
      cwd,
      env,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    t.teardown(() => terminal.kill('SIGKILL'));
    let output = '';
    let heard: () => void = () => undefined;
    terminal.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      heard();
    });
    const ended = new Promise<number | null>((resolve) => terminal.once('close', resolve));
    const until = async (pattern: RegExp): Promise<RegExpExecArray> => {
      for (;;) {
        const found = pattern.exec(output);
        if (found !== null) return found;
        await new Promise<void>((resolve) => {
          heard = resolve;
        });
      }
    };
    const [, port] = await until(/Accepting requests on http\S*:(\d+)/);
    const [, opsPort] = await until(/Ops server listening on http\S*:(\d+)/);
    const slow = fetch(`http://127.0.0.1:${port}/slow`);
    for (let count = 0; count === 0; ) {
      const status = await fetch(`http://127.0.0.1:${opsPort}/status`);
      ({
        in_flight: { count },
      } = (await status.json()) as { in_flight: { count: number } });
    }
    terminal.stdin.write('\x03');
    const answer = await slow;
    t.equal(answer.status, 200);
    t.strictSame(await answer.json(), { slow: true });
    t.equal(await ended, 0, output);
    t.match(output, 'Press Ctrl-C again to cut what is in flight');
    t.match(output, /have run: SIGINT handler \S+/);
    t.equal(output.match(/Nest ends by SIGINT/g)?.length, Math.max(1, workers), 'its hooks ran');
    t.notMatch(output, /Shutdown forced|Cut in-flight|FATAL|ERROR/);
  });
}
