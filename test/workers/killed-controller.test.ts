import t from 'tap';
import { Crew, gone } from '../support/workers-service.ts';

// Many processes, each of which has to start first.
t.setTimeout(120_000);

t.test('workers do not outlive their controller, not even a blocked one', async (t) => {
  const crew = await Crew.running(t, {
    workers: 3,
    env: { HEARTBEAT_TIMEOUT: '3600', SHUTDOWN_TIMEOUT: '5' },
  });
  const { service } = crew;
  const pids = await crew.pids(3);
  const blocking = (await crew.connect()).get('/block/3600000');
  await service.line('blocking');
  const held = (await crew.connect()).get('/hold/a');
  await service.line('holding a');
  service.signal('SIGKILL');
  await service.line('The controller is gone');
  crew.open('a');
  t.equal((await held.response()).status, 200, 'the others complete what they have');
  t.not(await blocking.ended, undefined, 'the blocked one is killed by its own recorder');
  for (const pid of pids) await gone(pid);
});
