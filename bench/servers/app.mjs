// What is measured of our own service: one JSON answer, one that takes its time.
import { setTimeout as delay } from 'node:timers/promises';
import { sendJson } from 'master-agent';

export default {
  routes(router) {
    router.get('/', (_request, response) => sendJson(response, 200, { hello: 'world' }));
    router.get('/slow/:ms', async (_request, response, { params, log }) => {
      log.info('A slow request is in flight');
      await delay(Number(params.ms));
      sendJson(response, 200, { slow: Number(params.ms) });
    });
  },
};
