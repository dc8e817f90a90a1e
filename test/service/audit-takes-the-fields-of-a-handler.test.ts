import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Context, sendJson } from '../../src/index.ts';
import { type AuditRecord, readRecords } from '../support/audit.ts';
import { running } from '../support/embedded-service.ts';

/** What is on record of a request whose handler did this; the handler's error is the test's. */
async function recorded(t: Test, handler: (context: Context) => void): Promise<AuditRecord> {
  const { service, ask, stateDir } = await running(t, {
    config: { auditLog: undefined },
    app: {
      routes(router) {
        router.get('/', (_request, response, context) => {
          handler(context);
          sendJson(response, 200, {});
        });
      },
    },
  });
  t.equal((await ask('/')).status, 200);
  await service.stop();
  return readRecords(join(stateDir, 'audit.ndjson'), 'request')[0] as AuditRecord;
}

t.test('they stand by themselves, merged, the later instead of the earlier', async (t) => {
  const record = await recorded(t, (context) => {
    context.audit({ order: 7, customer: 'a"b\n' });
    context.audit({ order: 8, paid: true });
  });
  t.strictSame(record.fields, { order: 8, customer: 'a"b\n', paid: true });
});

t.test('nothing of the record itself can be replaced', async (t) => {
  const record = await recorded(t, (context) => {
    context.audit({
      type: 'seal',
      time: 'never',
      status: 500,
      outcome: 'cut',
      id: 'mine',
      __proto__: { x: 1 },
    });
  });
  t.match(record, { type: 'request', status: 200, outcome: 'completed', path: '/' });
  t.strictSame(record.fields, { type: 'seal', time: 'never', status: 500, outcome: 'cut', id: 'mine' });
});

t.test('they are as they were at the call', async (t) => {
  const record = await recorded(t, (context) => {
    const cart = { items: ['book'] };
    context.audit({ cart });
    cart.items.push('pen');
  });
  t.strictSame(record.fields, { cart: { items: ['book'] } });
});

t.test('a request without any has no such field', async (t) => {
  t.notOk('fields' in (await recorded(t, () => undefined)));
});

t.test('what cannot be put on record is refused at the call, and what was there before stays', async (t) => {
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  const record = await recorded(t, (context) => {
    context.audit({ order: 7 });
    t.throws(() => context.audit({ circular }), TypeError);
    t.throws(() => context.audit({ big: 1n }), TypeError);
    t.throws(() => context.audit({ text: 'x'.repeat(8 * 1024) }), {
      name: 'RangeError',
      message: /^audit: want at most 8192 characters of JSON, got \d+$/,
    });
    context.audit({ fits: 'x'.repeat(8_000) });
    t.throws(() => context.audit({ one: 'x'.repeat(500) }), RangeError, 'all of it together counts');
  });
  t.strictSame(record.fields, { order: 7, fits: 'x'.repeat(8_000) });
});
