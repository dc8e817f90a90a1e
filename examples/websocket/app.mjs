// A chat over WebSocket. A stop tells each client to come back later (1012), and does not wait for it to leave by itself.
import { setTimeout as delay } from 'node:timers/promises';
import { closeOnStop, sendJson } from 'master-agent';
import { WebSocketServer } from 'ws';

const sockets = new WebSocketServer({ noServer: true });

export default {
  routes(router) {
    // Told one after the other: DRAIN_SPREAD=10 spreads it over ten seconds.
    router.upgrade('/chat', { onStop: 'tell' }, (request, socket, head, context) => {
      sockets.handleUpgrade(request, socket, head, (client) => {
        closeOnStop(context, client);
        client.on('error', () => client.terminate());
        client.on('message', (message) => {
          for (const other of sockets.clients) other.send(String(message));
        });
      });
    });

    router.get('/members', (_request, response) =>
      sendJson(response, 200, { members: sockets.clients.size }),
    );

    // Slow on purpose: a stop waits for it.
    router.get('/report', async (_request, response, { query, signal }) => {
      await delay(Number(query.get('ms') ?? 5000), undefined, { signal });
      sendJson(response, 200, { members: sockets.clients.size });
    });
  },

  stop() {
    sockets.close();
  },
};
