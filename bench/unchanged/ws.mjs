// A WebSocket server of the ws package beside plain HTTP, on one server, as its documentation has it.
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

await startDelay();
const server = createServer(handle);
const sockets = new WebSocketServer({ server, path: '/echo' });
sockets.on('connection', (socket) => socket.on('message', (data) => socket.send(data)));
server.listen(Number(process.env.PORT));
