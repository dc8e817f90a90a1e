import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import t from 'tap';
import { need } from '../support/need.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServiceProcess } from '../support/service-process.ts';

need('strace');

for (const mode of ['batched', 'strict']) {
  t.test(`${mode}: a disk whose sync fails`, async (t) => {
    const service = await ServiceProcess.running(t, { env: { AUDIT_MODE: mode } });
    const tracer = spawn('strace', [
      ...['-f', '-p', String(service.pid), '-e', 'trace=fdatasync', '-e', 'inject=fdatasync:error=EIO'],
    ]);
    const [attached] = await once(createInterface({ input: tracer.stderr }), 'line');
    t.teardown(() => tracer.kill());
    t.match(attached, 'attached');
    if (mode === 'strict') {
      const client = (await RawClient.open(service.port)).get('/');
      await client.ended;
      t.notMatch(client.pending, '200 OK', 'the answer has not left');
      await service.line('ERROR: The audit log cannot be written: EIO');
    } else service.signal('SIGTERM');
    t.strictSame(await service.exited, { code: 74, signal: null });
    t.match(service.output, 'EIO');
  });
}
