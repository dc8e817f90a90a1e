import t from 'tap';
import { WorkersService } from '../support/workers-service.ts';

t.test('MAX_CONNECTIONS holds for all workers together', async (t) => {
  const pool = await WorkersService.running(t, { env: { MAX_CONNECTIONS: '4' } });
  const open = [];
  for (let index = 0; index < 4; index += 1) {
    const client = await pool.connect();
    t.equal((await client.get('/').response()).status, 200);
    open.push(client);
  }
  const tooMany = (await pool.connect()).get('/');
  t.not(await tooMany.ended, undefined);
  t.equal(tooMany.pending, '', 'dropped, as a single process drops it');
  for (const client of open) client.destroy();
  await pool.service.statusWhen(({ connections }) => connections.open === 0);
  t.equal((await pool.get()).status, 200, 'there is room again');
});

t.test('a handed connection is one as node:http has it', async (t) => {
  const pool = await WorkersService.running(t, {
    workers: 1,
    app: `export default {
      routes(router) {
        router.get('/', (request, response) => response.end(JSON.stringify({
          halfOpen: request.socket.allowHalfOpen, client: request.socket.remoteAddress,
        })));
      },
    };\n`,
  });
  t.strictSame(JSON.parse((await pool.get()).body), { halfOpen: true, client: '127.0.0.1' });
});
