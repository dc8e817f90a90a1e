import t from 'tap';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

t.test(
  'pipelined requests that were admitted are all answered, and only the last answer closes',
  async (t) => {
    const service = await ServiceProcess.running(t);
    const client = (await RawClient.open(service.port)).get('/hold/a').get('/hold/b').get('/hold/c');
    for (const name of ['a', 'b', 'c']) await service.line(`holding ${name}`);
    await service.stop();

    // In another order than they are to be answered in.
    for (const name of ['c', 'a', 'b']) service.release(name);
    for (const held of ['a', 'b', 'c']) {
      const answer = await client.response();
      t.equal(answer.status, 200);
      t.strictSame(JSON.parse(answer.body), { held });
      if (held === 'c') t.equal(answer.headers.connection, 'close');
      else t.not(answer.headers.connection, 'close');
    }
    t.equal(await client.ended, 'fin');
    t.equal(client.pending, '');
    t.strictSame(await service.exited, { code: 0, signal: null });
  },
);
