// A chat over WebSocket. A stop tells each client to come back later (1012), and does not wait for it to leave by itself.
import { setTimeout as delay } from 'node:timers/promises';
import { sendJson } from 'master-agent';
import { WebSocketServer } from 'ws';

const RESTART = 1012;
const sockets = new WebSocketServer({ noServer: true });

export default {
  routes(router) {
    router.upgrade('/chat', (request, socket, head, { stopping }) => {
      sockets.handleUpgrade(request, socket, head, (client) => {
        const tell = () => client.close(RESTART, 'service restart');
        stopping.addEventListener('abort', tell, { once: true });
        // An upgrade that was admitted just before the lock.
        if (stopping.aborted) tell();
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
