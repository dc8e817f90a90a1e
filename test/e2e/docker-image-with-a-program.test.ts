import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { compose } from '../support/compose.ts';
import { DockerBox } from '../support/docker-box.ts';
import { RawClient } from '../support/raw-client.ts';
import { freePort } from '../support/replicas.ts';

const IMAGE = 'shop';
/** How long process 1 may take to reap what is left to it. */
const REAP_MS = 10_000;
const docker = await DockerBox.start(t, 'node:24-bookworm-slim', 'python:3.13-slim-bookworm');
// Two images are built first.
t.setTimeout(400_000);

await docker.ok('build', '--network=host', '--file', 'deployment/Dockerfile', '--tag', 'master-agent', '.');
await docker.ok('build', '--network=host', '--file', 'deployment/Dockerfile.guard', '--tag', IMAGE, '.');

const { service } = compose();

/** Starts one, and comes back when it serves. The network is the host's: the daemon of the test has none of its own. */
async function run(name: string): Promise<number> {
  const [port, opsPort] = [await freePort(), await freePort()];
  const settings = [`PORT=${port}`, `OPS_PORT=${opsPort}`, 'HOST=127.0.0.1'].flatMap((one) => ['--env', one]);
  const confined = [
    ...service.cap_drop.map((cap) => `--cap-drop=${cap}`),
    ...service.security_opt.map((option) => `--security-opt=${option}`),
  ];
  await docker.ok('run', '--detach', '--name', name, '--network=host', ...confined, ...settings, IMAGE);
  await docker.line(name, 'Service state: RUNNING');
  return port;
}

/** What it has written to both streams, in the order of time. */
async function log(name: string): Promise<string[]> {
  const { stdout, stderr } = await docker.run('logs', '--timestamps', name);
  return `${stdout}${stderr}`.split('\n').sort();
}

/** The commands of the processes in it that have ended and that nobody has reaped. */
async function zombies(name: string): Promise<string> {
  const script = `
    const { readdirSync, readFileSync } = require('node:fs');
    for (const pid of readdirSync('/proc').filter((name) => /^\\d+$/.test(name))) {
      try {
        const stat = readFileSync('/proc/' + pid + '/stat', 'latin1');
        if (/\\) Z /.test(stat)) console.log(stat.split(') Z')[0]);
      } catch {}
    }`;
  return docker.ok('exec', name, 'node', '-e', script);
}

t.test('it runs the program of the example, not as root', async (t) => {
  const port = await run('serving');
  t.match(await docker.inspect('.Config', IMAGE), {
    User: '1000:1000',
    StopSignal: 'SIGTERM',
    Cmd: ['guard'],
  });
  const client = await RawClient.open(port);
  t.match(await client.get('/health').response(), { status: 200, body: '{"status":"healthy"}' });
  t.match(await client.request('POST', '/data?item=tea', { 'Content-Length': '0' }).response(), {
    status: 201,
  });
  client.destroy();
  const health = (await docker.inspect<string[]>('.Config.Healthcheck.Test', IMAGE)).slice(1);
  t.match(await docker.run('exec', 'serving', ...health), { code: 0 });
});

t.test('what reloads leave behind is reaped', async (t) => {
  for (const generation of [2, 3]) {
    await docker.ok('kill', '--signal', 'HUP', 'serving');
    await docker.line('serving', `Reloaded: generation ${generation}`);
  }
  await docker.line('serving', 'ended with 0');
  const endMs = performance.now() + REAP_MS;
  while ((await zombies('serving')) !== '' && performance.now() < endMs) await delay(100);
  t.equal(await zombies('serving'), '');
});

t.test('docker stop loses no request, and the program is told when none is in flight', async (t) => {
  const port = await run('stopped');
  let goes = true;
  const answers = new Map<string, number>();
  const load = async (): Promise<void> => {
    while (goes) {
      const client = await RawClient.open(port).catch(() => undefined);
      if (client === undefined) return;
      const answer = await client.get('/health').answer();
      const how =
        answer.status === undefined
          ? answer.how
          : `${answer.status}${answer.body.includes('"fail_safe":true') ? ' fail_safe' : ''}`;
      answers.set(how, (answers.get(how) ?? 0) + 1);
      client.destroy();
    }
  };
  const loads = Promise.all([load(), load()]);
  // The program has it when the answer to a later request on another connection is there.
  const report = (await RawClient.open(port)).get('/report?seconds=4');
  await (await RawClient.open(port)).get('/health').response();
  const stopped = docker.ok('stop', '--time', String(service.stopSeconds), 'stopped');
  t.match(await report.answer({ ms: 60_000 }), { status: 200, body: /"report":"done"/ });
  await stopped;
  goes = false;
  await loads;

  t.equal(await docker.inspect('.State.ExitCode', 'stopped'), 0);
  t.strictSame([...answers.keys()].sort(), ['200', '503 fail_safe'], JSON.stringify([...answers]));
  const lines = await log('stopped');
  const at = (text: string): number => lines.findIndex((line) => line.includes(text));
  t.ok(at('Waiting up to') > at('Service state: RUNNING'), 'there was something to wait for');
  t.ok(at('Shutting down') > at('Waiting up to'), 'uvicorn is told after the drain');
  t.ok(at('Shutting down') < at('Service state: STOPPED'));
  t.match(
    lines.find((line) => line.includes('Service state: STOPPED')),
    'All requests completed gracefully',
  );
});
