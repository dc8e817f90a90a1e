// socket.io on a server of node:http, as its documentation has it.
import { createServer } from 'node:http';
import { Server } from 'socket.io';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

await startDelay();
const server = createServer(handle);
const io = new Server(server);
io.on('connection', (socket) => socket.on('echo', (text, answer) => answer(text)));
server.listen(Number(process.env.PORT));
