import type { ServerResponse } from 'node:http';
import { pino } from 'pino';
import t from 'tap';
import { createService, sendJson } from '../../src/index.ts';
import { assertRefused } from '../support/drain.ts';
import { RawClient } from '../support/raw-client.ts';
import { tempDir } from '../support/service-process.ts';

t.test(
  'who has connected while the service stops, and is slow to ask, gets the 503 at the very end',
  async (t) => {
    // In one process, so that its timers tell which comes first, the request or the end.
    let last: ServerResponse | undefined;
    const service = createService({
      config: { host: '127.0.0.1', port: 0, opsPort: 'off', stateDir: tempDir(t) },
      log: pino({ level: 'silent' }),
      app: {
        routes(router) {
          router.get('/last', (_request, response) => {
            last = response;
            void service.stop();
          });
        },
      },
    });
    await service.start();
    const port = service.address?.port ?? 0;
    const before = await RawClient.open(port);
    const held = (await RawClient.open(port)).get('/last');
    const refused = await RawClient.open(port);
    while (service.state === 'running') await new Promise(setImmediate);
    const late = await RawClient.open(port);
    assertRefused(t, await refused.get('/').response());

    last?.on('close', () => setTimeout(() => late.get('/'), 60));
    sendJson(last as ServerResponse, 200, {});
    t.equal((await held.response()).status, 200);
    assertRefused(t, await late.response());
    t.equal(await late.ended, 'fin');
    t.match(await service.stopped, { completed: 1, rejected: 2, exit_code: 0 });
    t.equal(await before.ended, 'fin');
    for (const client of [before, held, refused, late]) client.destroy();
  },
);
