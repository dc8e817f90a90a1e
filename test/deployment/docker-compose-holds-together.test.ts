import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { parseConfig } from '../../src/config/settings.ts';
import { compose } from '../support/compose.ts';

const { file, service } = compose();
const dockerfile = readFileSync('deployment/Dockerfile', 'utf8');

t.test('what must outlive the container, the latch first, is on a volume', async (t) => {
  const stateDir = /STATE_DIR=(\S+)/.exec(dockerfile)?.[1];
  t.strictSame(service.volumes, [`state:${stateDir}`]);
  t.ok('state' in file.volumes);
  t.match(dockerfile, `VOLUME ${stateDir}\n`);
  t.match(dockerfile, `COPY --from=build --chown=1000:1000 /build/state ${stateDir}\n`);
});

t.test('a latched service is not started for ever', async (t) => {
  t.match(service.restart, /^on-failure:\d+$/);
});

t.test('the rest of the container cannot be written, and it has no rights', async (t) => {
  t.equal(service.read_only, true);
  t.strictSame(service.cap_drop, ['ALL']);
  t.strictSame(service.security_opt, ['no-new-privileges:true']);
});

t.test('the token is a secret, in no variable and in no layer', async (t) => {
  t.strictSame(service.secrets, ['admin-token']);
  t.equal(service.environment.ADMIN_TOKEN_FILE, '/run/secrets/admin-token');
  t.ok(file.secrets['admin-token']?.file.startsWith('../secrets/'));
  t.notMatch(dockerfile, 'TOKEN');
  t.notOk(readFileSync('.dockerignore', 'utf8').includes('!secrets'));
});

t.test('it is built from what is there, and its settings are good ones', async (t) => {
  const { context, dockerfile: name } = service.build;
  t.ok(existsSync(join('deployment', context, name)));
  const { ADMIN_TOKEN_FILE: _, ...settings } = service.environment;
  t.equal(parseConfig(settings).opsHost, '0.0.0.0', 'so that the published port reaches the ops server');
  for (const [, source = ''] of dockerfile.matchAll(/^COPY (?!--from)(.*) \S+$/gm)) {
    for (const part of source.split(' ')) {
      t.ok(existsSync(part), part);
      t.ok(readFileSync('.dockerignore', 'utf8').includes(`!${part}\n`), `${part} is in the context`);
    }
  }
});
