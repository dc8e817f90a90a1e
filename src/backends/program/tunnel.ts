import { type IncomingMessage, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { type Duplex, pipeline } from 'node:stream';
import { hasCode } from '../../error.ts';
import type { Exchange } from '../../server/exchange.ts';
import { describe } from '../in-process/in-process.ts';
import { headForClient, headForProgram } from './headers.ts';
import { dropAtEnd, type Instance } from './instance.ts';
import { isUnsent, LOST, lostBody, type PassageParts, requestOf } from './passage.ts';

/** Passes on a request to leave HTTP, and when the program takes it, what both sides say from then on. */
export function passUpgrade(
  exchange: Exchange,
  stream: Duplex,
  head: Buffer,
  instance: Instance,
  { host, gate, instances }: PassageParts,
): void {
  const leave = instance.enter();
  const outgoing = requestOf(exchange, instance, headForProgram(exchange, host.proxies, true));
  let isAnswered = false;
  const begin = (answer: IncomingMessage): void => {
    isAnswered = true;
    exchange.answerUpgrade(answer.statusCode ?? 502);
    writeHead(stream, exchange, answer);
  };
  const join = (answer: IncomingMessage, socket: Socket, first: Buffer): void => {
    socket.off('end', dropAtEnd);
    begin(answer);
    stream.write(first);
    socket.write(head);
    pipeline(stream, socket, () => undefined);
    pipeline(socket, stream, (error) => {
      leave();
      if (hasCode(error, 'ECONNRESET', 'EPIPE') && !stream.destroyed) host.cut([describe(exchange, LOST)]);
      stream.destroy();
    });
  };
  outgoing
    .on('upgrade', join)
    .on('connect', join)
    .on('response', (answer) => {
      begin(answer);
      answer.once('close', leave);
      pipeline(answer, stream, () => exchange.request.socket.destroySoon());
    })
    .on('error', (error) => {
      leave();
      if (stream.destroyed || isAnswered) return;
      if (isUnsent(error)) {
        void instances.noteDeaf(instance);
        refuseUpgrade(exchange, stream, gate);
        return;
      }
      host.cut([describe(exchange, LOST)]);
      exchange.lose();
      const body = JSON.stringify(lostBody(host));
      stream.write(
        `HTTP/1.1 502 ${STATUS_CODES[502]}\r\nX-Request-Id: ${exchange.id}\r\n` +
          'Content-Type: application/json; charset=utf-8\r\n' +
          `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
      );
      end(exchange, 502);
    });
  stream.once('close', () => outgoing.destroy());
  outgoing.end();
}

/** Nothing is there that could take it. */
export function refuseUpgrade(exchange: Exchange, stream: Duplex, gate: PassageParts['gate']): void {
  gate.refuseAdmittedRaw(stream, exchange.id);
  end(exchange, 503);
}

function end(exchange: Exchange, status: number): void {
  exchange.answerUpgrade(status);
  exchange.request.socket.destroySoon();
}

/** There is no response of node:http that could write it. */
function writeHead(stream: Duplex, { id, method }: Exchange, answer: IncomingMessage): void {
  const { statusCode = 502, statusMessage, headers, rawHeaders } = answer;
  const { head } = headForClient(rawHeaders);
  if (headers['x-request-id'] === undefined) head.push('X-Request-Id', id);
  if (statusCode === 101) head.push('Connection', 'Upgrade', 'Upgrade', headers.upgrade ?? '');
  else if (method !== 'CONNECT') head.push('Connection', 'close');
  let text = `HTTP/1.1 ${statusCode} ${statusMessage}\r\n`;
  for (let at = 0; at < head.length; at += 2) text += `${head[at]}: ${head[at + 1]}\r\n`;
  stream.write(`${text}\r\n`, 'latin1');
}
