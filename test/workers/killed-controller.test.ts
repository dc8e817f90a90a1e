import t from 'tap';
import { gone, WorkersService } from '../support/workers-service.ts';

t.test('workers do not outlive their controller, not even a blocked one', async (t) => {
  const pool = await WorkersService.running(t, {
    workers: 3,
    env: { HEARTBEAT_TIMEOUT: '3600', SHUTDOWN_TIMEOUT: '5' },
  });
  const { service } = pool;
  const pids = await pool.pids(3);
  const blocking = (await pool.connect()).get('/block/3600000');
  await service.line('blocking');
  const held = (await pool.connect()).get('/hold/a');
  await service.line('holding a');
  service.signal('SIGKILL');
  await service.line('The controller is gone');
  pool.open('a');
  t.equal((await held.response()).status, 200, 'the others complete what they have');
  t.not(await blocking.ended, undefined, 'the blocked one is killed by its own recorder');
  for (const pid of pids) await gone(pid);
});
