// An Express 5 application with the usual middleware, mounted as it is.
import compression from 'compression';
import cors from 'cors';
import express from 'express';
import helmet from 'helmet';

const orders = [{ id: 1, item: 'padlock' }];

const app = express();
app.disable('x-powered-by');
app.use(helmet());
app.use(cors());
app.use(compression());
app.use(express.json({ limit: '100kb' }));
app.use(express.urlencoded({ extended: false }));

app.get('/orders', (_request, response) => {
  response.json({ orders });
});

app.post('/orders', (request, response) => {
  const order = { id: orders.length + 1, item: request.body.item };
  orders.push(order);
  response.status(201).json(order);
});

// Slow on purpose: a stop waits for it.
app.get('/report', (request, response) => {
  setTimeout(() => response.json({ orders: orders.length }), Number(request.query.ms ?? 5000));
});

app.use((error, request, response, _next) => {
  // Found again in the audit log, and by whoever has the answer: it has this id as X-Request-Id.
  console.error({ request: request.headers['x-request-id'], error });
  response
    .status(error.status ?? 500)
    .json({ error: error.expose ? error.message : 'Internal Server Error' });
});

export default {
  routes(router) {
    router.mount('/', app);
  },
};
