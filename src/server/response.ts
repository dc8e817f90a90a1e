import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import { StringDecoder } from 'node:string_decoder';

/** An error with an answer: thrown by a handler, it becomes `status` and `{"error", "message"}`. */
export class HttpError extends Error {
  override readonly name = 'HttpError';
  readonly status: number;

  /** @param message shown to the client, so it must hold nothing that the client may not see */
  constructor(status: number, message: string) {
    super(message);
    if (!(Number.isInteger(status) && status >= 400 && status <= 599)) {
      throw new RangeError(`HttpError: want a status from 400 to 599, got ${status}`);
    }
    this.status = status;
  }
}

/** The JSON that goes with an error's status. */
export function errorBody(status: number, message: string): { error: string; message: string } {
  return { error: STATUS_CODES[status] ?? 'Error', message };
}

/** Answers with `value` as JSON. Headers set before with `response.setHeader` are kept. */
export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = JSON.stringify(value);
  response.writeHead(status, {
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': Buffer.byteLength(body),
  });
  response.end(body);
}

/** Answers with an error in the shape that all errors of this service have. */
export function sendError(response: ServerResponse, status: number, message: string): void {
  sendJson(response, status, errorBody(status, message));
}

export interface ReadJsonOptions {
  /** Most bytes to take. Default 1 MiB. */
  readonly limit?: number;
}

/**
 * Reads the request's body as JSON.
 * @throws HttpError 415 when it is not declared as JSON, 413 past the limit, 400 when it is not JSON or ends early.
 */
export async function readJson(request: IncomingMessage, options: ReadJsonOptions = {}): Promise<unknown> {
  const limit = options.limit ?? 1024 * 1024;
  const type = request.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase();
  if (type === undefined || !(type === 'application/json' || type.endsWith('+json'))) {
    throw new HttpError(415, 'The body must be JSON, with Content-Type: application/json.');
  }
  const tooLarge = new HttpError(413, `The body must not be larger than ${limit} bytes.`);
  if (Number(request.headers['content-length']) > limit) throw tooLarge;
  const text = await readText(request, limit, tooLarge);
  try {
    return JSON.parse(text);
  } catch {
    throw new HttpError(400, 'The body is not valid JSON.');
  }
}

function readText(request: IncomingMessage, limit: number, tooLarge: HttpError): Promise<string> {
  return new Promise((resolve, reject) => {
    const decoder = new StringDecoder('utf8');
    let size = 0;
    let text = '';
    const onData = (chunk: Buffer): void => {
      size += chunk.length;
      if (size > limit) {
        // What still comes is read and dropped by the connection, so that the 413 arrives and not a reset.
        request.off('data', onData);
        reject(tooLarge);
      } else text += decoder.write(chunk);
    };
    request.on('data', onData);
    request.once('end', () => resolve(text + decoder.end()));
    request.once('error', () => reject(new HttpError(400, 'The body ended early.')));
  });
}
