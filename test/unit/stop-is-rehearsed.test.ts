import t from 'tap';
import { rehearse } from '../../src/backends/in-process/rehearsal.ts';
import { completeConfig } from '../../src/config/settings.ts';

t.test('a rehearsal admits one request, stops and refuses the next', async (t) => {
  t.strictSame(await rehearse(completeConfig({})), [200, 503]);
  t.strictSame(await rehearse(completeConfig({ enableFailSafe: false })), [200, 503]);
});
