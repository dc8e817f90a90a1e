import { join } from 'node:path';
import t from 'tap';
import { ROOT } from '../support/root.ts';
import { WorkersService } from '../support/workers-service.ts';

const EXPRESS = join(ROOT, 'node_modules/express/index.js');

/** Written so that each place where a handler waits has a line of its own. */
const APP = `import express from ${JSON.stringify(EXPRESS)};
const never = new Promise(() => {});
async function charge(inFlight) {
  inFlight.enter('the order')();
  inFlight.enter('the card');
  await new Promise((resolve) => setTimeout(resolve, 5));
  await new Promise(() => {}); // LINE charge
}
async function hangs() {
  await never; // LINE hangs
}
async function shortly() {
  await new Promise((resolve) => setTimeout(resolve, 5));
}
async function pay(inFlight) {
  await charge(inFlight); // LINE pay
}
const mounted = express();
mounted.get('/deep', async (request, response) => {
  await 0;
  await Promise.all([never, Promise.resolve(1)]); // LINE express
});
export default {
  routes(router) {
    router.get('/orders/:id', async function order(request, response, { inFlight, log }) {
      log.info('waiting');
      await pay(inFlight); // LINE order
    });
    router.get('/callback', (request, response, { log }) => {
      log.info('waiting');
    });
    router.get('/at-once', async function atOnce(request, response, { log }) {
      log.info('waiting');
      await (async function inner() {
        await never; // LINE inner
      })(); // LINE atOnce
    });
    router.get('/past', (request, response) => {
      void hangs();
      void shortly();
    });
    router.mount('/express', mounted);
  },
};
`;

function lineOf(mark: string): number {
  return APP.split('\n').findIndex((line) => line.endsWith(`// LINE ${mark}`)) + 1;
}

for (const workers of [0, 2]) {
  t.test(`WORKERS=${workers}: each request that is cut says where its handler waits`, async (t) => {
    const env = { SHUTDOWN_TIMEOUT: '1', DRAIN_TRACE: 'true' };
    const pool = await WorkersService.running(t, { workers, app: APP, env });
    const paths = ['/orders/17', '/callback', '/at-once', '/past', '/express/deep'];
    for (const path of paths) (await pool.connect()).get(path);
    await pool.service.statusWhen(({ in_flight }) => in_flight.count === paths.length + 1);
    pool.service.signal('SIGTERM');
    t.equal((await pool.service.exited).code, 1);
    const file = `file://${join(pool.dir, 'app.mjs')}`;
    const place = (mark: string): string => `${file}:${lineOf(mark)}:\\d+`;
    const { output } = pool.service;
    t.match(
      output,
      /^WARNING: Cut in-flight request: GET \/orders\/17 after [\d.]+s \(working\), because the time is over$/m,
    );
    const waits: Record<string, string> = {
      '/orders/17': `route /orders/:id; holding "the card"; waiting at charge \\(${place('charge')}\\), async pay \\(${place('pay')}\\), async order \\(${place('order')}\\)`,
      '/callback': 'waiting for no promise',
      '/at-once': `waiting at inner \\(${place('inner')}\\), (atOnce|Object.atOnce|order) \\(${place('atOnce')}\\).*`,
      '/past': `waiting at hangs \\(${place('hangs')}\\).*`,
      '/express/deep': `route /express/\\*; waiting at ${place('express')}.*`,
    };
    for (const [path, where] of Object.entries(waits))
      t.match(output, new RegExp(`^WARNING: Where GET ${path} was: ${where}$`, 'm'), path);
    const cut = pool.service.report().cut.find(({ path }) => path === '/orders/17');
    t.match(cut, {
      route: '/orders/:id',
      hold: 'the card',
      waits_at: [/^charge /, /^async pay /, /^async order /],
    });
  });
}

t.test('without DRAIN_TRACE the route and the hold are told all the same', async (t) => {
  const pool = await WorkersService.running(t, { workers: 0, app: APP, env: { SHUTDOWN_TIMEOUT: '1' } });
  (await pool.connect()).get('/orders/17');
  await pool.service.line('waiting');
  pool.service.signal('SIGTERM');
  await pool.service.exited;
  t.match(
    pool.service.output,
    /^WARNING: Where GET \/orders\/17 was: route \/orders\/:id; holding "the card"$/m,
  );
});
