import { ExitCode } from '../exit-code.ts';
import { UNLATCH } from '../lifecycle/latch.ts';
import { readToken } from '../platform/secrets.ts';
import { EMERGENCY_PATH } from '../server/request-audit.ts';
import { command, fail, say } from './command.ts';
import { ANSWER_MS, controlConfig, noAnswer, opsServer } from './operator.ts';

const HELP = `usage: master-agent emergency [--reason TEXT]

Locks the service at once, latches it and stops it: it stays down, whatever restarts it, until it is unlatched. Asks the
ops server, with the token of ADMIN_TOKEN or ADMIN_TOKEN_FILE.

  --reason TEXT   why; kept in the latch, the audit log and the report
  --help          this

exit: 0 it stops and is latched; 1 it was refused, nobody answered, or the latch could not be written;
      78 no token, no ops server, or bad configuration
`;

export function run(args: readonly string[]): Promise<number> {
  return command(HELP, args, { reason: { type: 'string' } }, async ({ reason }) =>
    emergency(typeof reason === 'string' ? reason : ''),
  );
}

async function emergency(reason: string): Promise<number> {
  const config = controlConfig();
  const token = readToken(config);
  if (token === undefined)
    throw new Error('ADMIN_TOKEN and ADMIN_TOKEN_FILE are unset: there is no token to send');
  const url = opsServer(config);
  if (url === undefined) throw new Error('OPS_PORT is off: there is no ops server to ask');
  let answer: Readonly<Record<string, unknown>>;
  try {
    const response = await fetch(`${url}${EMERGENCY_PATH}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
      body: JSON.stringify({ reason }),
      // The answer comes when the latch is on disk.
      signal: AbortSignal.timeout(2 * ANSWER_MS),
    });
    answer = Object(await response.json());
  } catch (error) {
    return fail(noAnswer(url, error));
  }
  if (answer.status !== 'shutdown_initiated')
    return fail(`Refused by the ops server at ${url}: ${answer.message}`);
  if (answer.latched === false)
    return fail('Emergency shutdown begun, but the latch could not be written: nothing prevents a restart');
  say(`Emergency shutdown begun, and latched. To start again: ${UNLATCH}`);
  return ExitCode.Ok;
}
