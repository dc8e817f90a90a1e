import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readHead } from '../../src/audit/head.ts';
import { verify } from '../../src/audit/verify.ts';
import { tempDir } from '../support/service-process.ts';
import { WorkersService } from '../support/workers-service.ts';

t.test('two workers and a reload: each chain dropped whole, and the last write of each', async (t) => {
  const pool = await WorkersService.running(t, { env: { KEEP_ALIVE_TIMEOUT: '1' } });
  const { service } = pool;
  const ask = async (): Promise<void> => {
    for (let round = 0; round < 10; round += 1) t.equal((await pool.get()).status, 200);
  };
  await ask();
  await pool.reload();
  await ask();
  service.signal('SIGTERM');
  t.strictSame(await service.exited, { code: 0, signal: null });

  const file = join(service.stateDir, 'audit.ndjson');
  const head = readHead(file);
  t.equal(verify([file], { head }).finding, undefined);
  const writes = readFileSync(file, 'utf8')
    .split(/(?<=\{"type":"seal",.*\n)/)
    .map((text) => ({ text, chain: /"type":"seal","chain":"([^"]+)"/.exec(text)?.[1] }));
  const chains = [...new Set(writes.map(({ chain }) => chain))];
  t.equal(chains.length, 5, 'the controller and two generations of two workers');
  const left = join(tempDir(t), 'left.ndjson');
  for (const chain of chains) {
    const last = writes.findLast((each) => each.chain === chain);
    for (const [name, kept] of [
      ['whole', writes.filter((each) => each.chain !== chain)],
      ['its last write', writes.filter((each) => each !== last)],
    ] as const) {
      writeFileSync(left, kept.map(({ text }) => text).join(''));
      t.not(verify([left], { head }).finding, undefined, `${name}, with the head`);
      const { finding, unseen } = verify([left]);
      if (chain !== chains[0]) t.not(finding, undefined, `a worker, ${name}`);
      else
        t.ok(
          finding ?? unseen.find((what) => /not closed|begins before/.test(what)),
          `the controller, ${name}`,
        );
    }
  }
});
