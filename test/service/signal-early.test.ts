import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { ROOT } from '../support/root.ts';
import { ServiceProcess } from '../support/service-process.ts';

const FIXTURES = join(ROOT, 'test/fixtures');

t.test('a SIGTERM before anything but its handler is loaded is obeyed', async (t) => {
  const preload = pathToFileURL(join(FIXTURES, 'signal-when-trapped.mjs')).href;
  const service = ServiceProcess.spawn(t, { nodeArgs: ['--import', preload] });
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.match(service.output, 'trapped, with node:http still to be loaded', 'before anything slow');
  t.match(service.output, 'Received signal 15');
  t.match(service.output, 'INFO: Service shutdown complete');
  t.notMatch(service.output, 'RUNNING');
});

t.test('a SIGTERM at the first line of the log is obeyed', async (t) => {
  const service = ServiceProcess.spawn(t);
  await service.line('STARTING');
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.match(service.output, 'INFO: Service shutdown complete');
});

t.test('a SIGTERM while start() hangs is obeyed', async (t) => {
  const service = ServiceProcess.spawn(t, { args: [join(FIXTURES, 'app-hanging-start.mjs')] });
  await service.line('start() hangs');
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.match(service.output, 'INFO: Service shutdown complete');
  t.notMatch(service.output, 'stop() was called', 'what has not started is not stopped');
});

t.test('a start() that gives up in time is stopped', async (t) => {
  const service = ServiceProcess.spawn(t, { args: [join(FIXTURES, 'app-slow-start.mjs')] });
  await service.line('start() waits');
  service.signal('SIGINT');
  t.strictSame(await service.exited, { code: 0, signal: null });
  t.match(service.output, 'start() gives up');
  t.match(service.output, 'stop() lets go');
  t.notMatch(service.output, 'RUNNING');
});
