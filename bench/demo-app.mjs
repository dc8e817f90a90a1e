// A small shop, to try the service with: APP=bench/demo-app.mjs make run
//
//   curl localhost:8000/orders
//   curl localhost:8000/orders -H 'Content-Type: application/json' -d '{"item":"safe","quantity":2}'
//   curl localhost:8000/orders/1
//   curl 'localhost:8000/report?seconds=10'      # then, in another terminal: make stop
//   curl -T big.iso localhost:8000/files/big.iso
//   curl localhost:8000/export
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { HttpError, readJson, sendJson } from 'master-agent';

const LONGEST_REPORT_SECONDS = 3600;

/** Orders by id. A real application opens its database in start() and closes it in stop(). */
const orders = new Map();

export default {
  start({ log }) {
    place({ item: 'padlock', quantity: 3 });
    place({ item: 'strongbox', quantity: 1 });
    log.info(`The shop has ${orders.size} orders`);
  },

  routes(router) {
    router.get('/orders', listOrders);
    router.post('/orders', placeOrder);
    router.get('/orders/:id', showOrder);
    router.get('/report', makeReport);
    router.put('/files/:name', countUpload);
    router.get('/export', exportOrders);
  },

  // Runs when the last request has been answered: nothing can still want what is closed here.
  stop() {
    orders.clear();
  },
};

function listOrders(_request, response) {
  sendJson(response, 200, { orders: [...orders.values()] });
}

async function placeOrder(request, response, { log }) {
  const order = place(validated(await readJson(request)));
  log.info(`Order ${order.id} placed`);
  response.setHeader('Location', `/orders/${order.id}`);
  sendJson(response, 201, order);
}

function showOrder(_request, response, { params }) {
  const order = orders.get(Number(params.id));
  // What a handler throws as an HttpError is the answer; anything else it throws becomes a 500.
  if (order === undefined) throw new HttpError(404, `There is no order ${params.id}.`);
  sendJson(response, 200, order);
}

/** Slow on purpose: a stop waits for it, up to SHUTDOWN_TIMEOUT, and a client that leaves ends it. */
async function makeReport(_request, response, { query, signal }) {
  const seconds = Number(query.get('seconds') ?? 2);
  if (!(seconds >= 0 && seconds <= LONGEST_REPORT_SECONDS)) {
    throw new HttpError(400, `seconds: want a number from 0 to ${LONGEST_REPORT_SECONDS}.`);
  }
  await delay(seconds * 1000, undefined, { signal });
  const pieces = [...orders.values()].reduce((sum, { quantity }) => sum + quantity, 0);
  sendJson(response, 200, { orders: orders.size, pieces, seconds });
}

async function countUpload(request, response, { params }) {
  let bytes = 0;
  for await (const chunk of request) bytes += chunk.length;
  sendJson(response, 200, { name: params.name, bytes });
}

/** One order a line, written as fast as the client reads and no faster. */
async function exportOrders(_request, response, { signal }) {
  response.writeHead(200, { 'Content-Type': 'application/x-ndjson' });
  for (const order of orders.values()) {
    if (!response.write(`${JSON.stringify(order)}\n`)) await once(response, 'drain', { signal });
  }
  response.end();
}

function place({ item, quantity }) {
  const order = { id: orders.size + 1, item, quantity, placed_at: new Date().toISOString() };
  orders.set(order.id, order);
  return order;
}

function validated(body) {
  const { item, quantity = 1 } = body ?? {};
  if (typeof item !== 'string' || item === '')
    throw new HttpError(400, 'item: want a text that is not empty.');
  if (!Number.isInteger(quantity) || quantity < 1)
    throw new HttpError(400, 'quantity: want a whole number from 1.');
  return { item, quantity };
}
