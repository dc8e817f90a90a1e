import type { Test } from 'tap';
import { MANAGE, type Result, SystemdBox } from './systemd-box.ts';

export const UNIT = 'master-agent-guard@shop.service';
export const SETTINGS = '/etc/master-agent/shop.env';
export const STATE_DIR = '/var/lib/master-agent-shop';
/** A copy of test/fixtures/guarded-program.mjs. */
export const PROGRAM = '/opt/shop/server.mjs';
const DOORS = `${STATE_DIR}/doors`;

/** Boots a systemd and installs the unit in it, with a program. */
export async function bootGuard(t: Test): Promise<SystemdBox> {
  const box = await SystemdBox.boot(t, UNIT);
  await box.ok(MANAGE, '--guard', 'shop', 'install', '--offline');
  await box.sh(`install -d /opt/shop && cp /checkout/test/fixtures/guarded-program.mjs ${PROGRAM}`);
  await box.sh(`install -d -o master-agent -g master-agent ${STATE_DIR} ${DOORS}`);
  await guardSettings(box);
  return box;
}

/** Writes the environment file of the unit. */
export async function guardSettings(box: SystemdBox, habit = ''): Promise<void> {
  const command = JSON.stringify(['/usr/bin/env', 'node', PROGRAM, '{socket}', habit]);
  await box.write(SETTINGS, `GUARD_COMMAND='${command}'\nDOORS=${DOORS}\n`);
}

/** Sends a request that is answered when it is released, and comes back when the program has it. */
export async function hold(
  box: SystemdBox,
  name: string,
): Promise<{ answer: Promise<Result>; release(): Promise<void> }> {
  const mark = box.mark();
  const answer = box.curl(`/hold/${name}`);
  await box.line(`holding ${name}`, mark);
  return { answer, release: async () => void (await box.sh(`touch ${DOORS}/${name}`)) };
}

/** The process id of the program, which it tells itself. */
export async function programPid(box: SystemdBox): Promise<string> {
  return String(JSON.parse((await box.curl('/pid')).stdout).pid);
}
