import type { Duplex } from 'node:stream';
import type { Context } from './context.ts';

export interface CloseOptions {
  /** RFC 6455, section 7.4. Default: 1012, "service restart"; 1001 is "going away". */
  readonly code?: number;
  /** At most 123 bytes of UTF-8. Default: `service restart`. */
  readonly reason?: string;
  /** How long the client has to close its side, in milliseconds. Default: 2000. */
  readonly timeoutMs?: number;
}

/** A WebSocket of the `ws` package, or one with these methods. */
export interface ClosableWebSocket {
  close(code: number, reason: string): void;
  terminate(): void;
  once(event: 'close', listener: () => void): unknown;
}

/** RFC 6455, section 5.5: the payload of a control frame, and of it two bytes are the code. */
const MOST_REASON_BYTES = 125 - 2;
/** A last frame (FIN), of the kind that closes. */
const CLOSE_FRAME = 0x88;

/**
 * Closes a WebSocket when the service stops, with a code that has its client connect again: on a route with
 * `onStop: 'tell'` at its turn in DRAIN_SPREAD. A client that does not close its side in time is cut off.
 * @param socket what an `upgrade` handler is given, or a WebSocket of `ws`
 * @throws RangeError when the code is none that may be sent, or the reason is too long
 */
export function closeOnStop(
  { stopping }: Pick<Context, 'stopping'>,
  socket: Duplex | ClosableWebSocket,
  { code = 1012, reason = 'service restart', timeoutMs = 2_000 }: CloseOptions = {},
): void {
  assertSendable(code, reason);
  let timer: NodeJS.Timeout | undefined;
  const isWebSocket = 'terminate' in socket;
  const cutOff = (): void => (isWebSocket ? socket.terminate() : void socket.destroy());
  const close = (): void => {
    timer = setTimeout(cutOff, timeoutMs);
    if (isWebSocket) socket.close(code, reason);
    // Nothing may be sent behind this frame, so our side of the connection ends with it.
    else socket.end(closeFrame(code, reason)).resume();
  };
  const ended = (): void => {
    clearTimeout(timer);
    stopping.removeEventListener('abort', close);
  };
  socket.once('close', ended);
  if (stopping.aborted) close();
  else stopping.addEventListener('abort', close, { once: true });
}

function closeFrame(code: number, reason: string): Buffer {
  const text = Buffer.from(reason);
  return Buffer.concat([Buffer.from([CLOSE_FRAME, text.length + 2, code >> 8, code & 0xff]), text]);
}

/** RFC 6455, section 7.4.2, and IANA's registry of close codes. */
function assertSendable(code: number, reason: string): void {
  const isRegistered = code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code);
  if (!Number.isInteger(code) || !(isRegistered || (code >= 3000 && code <= 4999)))
    throw new RangeError(`closeOnStop: code: want a close code that may be sent (1001, 1012), got ${code}`);
  const bytes = Buffer.byteLength(reason);
  if (bytes > MOST_REASON_BYTES)
    throw new RangeError(`closeOnStop: reason: want at most ${MOST_REASON_BYTES} bytes, got ${bytes}`);
}
