// A small shop without a framework.
import { setTimeout as delay } from 'node:timers/promises';
import { HttpError, readJson, sendJson } from 'master-agent';

const orders = new Map();

export default {
  start({ log }) {
    orders.set(1, { id: 1, item: 'padlock' });
    log.info(`The shop has ${orders.size} orders`);
  },

  routes(router) {
    router.get('/orders', (_request, response) => sendJson(response, 200, { orders: [...orders.values()] }));
    router.post('/orders', placeOrder);
    router.get('/orders/:id', showOrder);
    router.get('/report', makeReport);
  },

  // Runs when the last request has been answered: nothing can still want what is closed here.
  stop() {
    orders.clear();
  },
};

async function placeOrder(request, response, context) {
  const { item } = await readJson(request);
  if (typeof item !== 'string') throw new HttpError(400, 'item: want a string.');
  const order = { id: orders.size + 1, item };
  orders.set(order.id, order);
  context.audit({ order: order.id });
  sendJson(response, 201, order);
}

function showOrder(_request, response, { params }) {
  const order = orders.get(Number(params.id));
  if (order === undefined) throw new HttpError(404, `There is no order ${params.id}.`);
  sendJson(response, 200, order);
}

/** Slow on purpose: a stop waits for it, and a client that leaves ends it. */
async function makeReport(_request, response, { query, signal }) {
  await delay(Number(query.get('ms') ?? 5000), undefined, { signal });
  sendJson(response, 200, { orders: orders.size });
}
