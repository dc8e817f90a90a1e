import { spawnSync } from 'node:child_process';

/**
 * For a test that runs a program of the system.
 * @throws Error when the program is not there, with the line that installs it
 */
export function need(
  program: string,
  install = `apt-get install -y --no-install-recommends ${program}`,
  versionFlag = '--version',
): void {
  if (spawnSync(program, [versionFlag]).error !== undefined)
    throw new Error(`There is no ${program} here: ${install}`);
}

const APT = 'apt-get install -y --no-install-recommends';

/** The packages of Debian that programs come in, where the name differs. */
export const INSTALL = {
  nginx: `${APT} nginx-light`,
  promtool: `${APT} prometheus`,
  prlimit: `${APT} util-linux`,
  openssl: `${APT} openssl`,
  script: `${APT} bsdutils`,
  chromium: `${APT} chromium`,
  docker: `${APT} docker.io`,
  systemd: `${APT} systemd-container dbus curl`,
  kubectl: 'the lines about kubectl in .ci/run',
} as const;
