import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ServiceProcess, tempDir } from '../support/service-process.ts';

const APP = `import { defineApp, sendJson } from 'master-agent';
export default defineApp({
  routes(router) {
    router.get('/', (_request, response) => sendJson(response, 200, { from: import.meta.url }));
  },
});
`;

async function served(t: Test, args: readonly string[], cwd: string, workers = '0'): Promise<unknown> {
  const service = await ServiceProcess.running(t, { args, cwd, env: { WORKERS: workers } });
  const answer = await (await fetch(`http://127.0.0.1:${service.port}/`)).json();
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
  return answer;
}

t.test(
  'an application outside the checkout that imports master-agent gets the one that serves it',
  async (t) => {
    const dir = tempDir(t);
    writeFileSync(join(dir, 'app.mjs'), APP);
    t.match(await served(t, ['app.mjs'], dir), { from: /app\.mjs$/ });
    t.match(await served(t, [join(dir, 'app.mjs')], '/', '1'), { from: /app\.mjs$/ }, 'in a worker too');
  },
);

t.test('one that has it installed keeps its own', async (t) => {
  const dir = tempDir(t);
  const installed = join(dir, 'app/node_modules/master-agent');
  mkdirSync(installed, { recursive: true });
  writeFileSync(join(installed, 'package.json'), '{"type":"module","exports":"./index.js"}');
  writeFileSync(
    join(installed, 'index.js'),
    'export const defineApp = (app) => app;\n' +
      'export const sendJson = (response) => response.end(\'{"own":true}\');\n',
  );
  writeFileSync(join(dir, 'app/app.mjs'), APP);
  t.strictSame(await served(t, ['app/app.mjs'], dir), { own: true });
  symlinkSync('app/app.mjs', join(dir, 'current.mjs'));
  t.strictSame(await served(t, ['current.mjs'], dir), { own: true }, 'also behind a link');
});

t.test(
  'an application in TypeScript runs where Node strips types, elsewhere one line says what to do',
  async (t) => {
    const dir = tempDir(t);
    writeFileSync(
      join(dir, 'app.mts'),
      `import type { Router } from 'master-agent';
export default {
  routes(router: Router): void {
    router.get('/', (_request, response) => void response.end('{"typed":true}'));
  },
};
`,
    );
    if ('typescript' in process.features && process.features.typescript !== false) {
      t.strictSame(await served(t, ['app.mts'], dir), { typed: true });
      return;
    }
    const service = ServiceProcess.spawn(t, { args: ['app.mts'], cwd: dir });
    t.strictSame(await service.exited, { code: 78, signal: null });
    t.match(
      service.lines.at(-1),
      `APP: Node ${process.version} cannot import app.mts: use Node 22.18 or newer, or NODE_OPTIONS="--import tsx"`,
    );
  },
);
