import t from 'tap';
import { createService, StartError } from '../../src/index.ts';
import { tempDir } from '../support/service-process.ts';

t.test('an application that has started after it was given up is stopped, and gets no routes', async (t) => {
  const heard: string[] = [];
  let opened: () => void = () => undefined;
  const opening = new Promise<void>((resolve) => {
    opened = resolve;
  });
  const stopped = new Promise<void>((resolve) => {
    const service = createService({
      app: {
        start: () => opening,
        routes: () => void heard.push('routes'),
        async stop() {
          heard.push('stop');
          resolve();
        },
      },
      config: { port: 0, opsPort: 'off', stateDir: tempDir(t), startTimeoutMs: 10, logLevel: 'fatal' },
    });
    void t.rejects(service.start(), StartError).then(opened);
  });
  await stopped;
  await opening;
  t.strictSame(heard, ['stop']);
});
