// Takes orders, each in its time, and notes every one it has seen in the file that DISPATCHED names.
import { appendFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { sendJson } from 'master-agent';

const LONGEST_MS = 50;
/** Some take long: the drain lasts until each connection was used once more, and none is idle at the end. */
const SLOW_EACH = 20;
const SLOW_MS = 600;

export default {
  routes(router) {
    router.post('/orders/:number', async (_request, response, { params }) => {
      const order = Number(params.number);
      appendFileSync(process.env.DISPATCHED ?? '/dev/null', `${order}\n`);
      await delay(order % SLOW_EACH === 0 ? SLOW_MS : Math.random() * LONGEST_MS);
      sendJson(response, 200, { order });
    });
  },
};
