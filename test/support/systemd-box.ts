import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Test } from 'tap';
import { INSTALL } from './need.ts';
import { ROOT } from './root.ts';

const SCRIPT = join(ROOT, 'test/support/systemd-box.sh');
/** Longer than a stop may take; what is not so by then will not be. */
const PROPERTY_MS = 90_000;
const SERVICE = 'master-agent.service';
export const STATE_DIR = '/var/lib/master-agent';
/** Where the application of the service in the box is: a copy of test/fixtures/box-app.mjs. */
export const APP = '/opt/master-agent/app/app.mjs';
export const MANAGE = '/checkout/deployment/manage-service.sh';
/** All of a file's tests, on a slow machine. */
const FILE_MS = 180_000;
/** The exit code with which the script says that no systemd can boot here. */
const CANNOT = 77;

export interface Result {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface JournalLine {
  readonly text: string;
  /** syslog(3): 3 error, 4 warning, 6 info. */
  readonly priority: number;
  /** `master-agent`, or `systemd` for what it says of the unit. */
  readonly from: string;
  readonly pid: number;
}

/** A program that runs in the box. */
export interface Running {
  readonly child: ChildProcess;
  readonly result: Promise<Result>;
  /** Waits for a line on its standard output. */
  line(text: string): Promise<string>;
}

/** A systemd of its own, with the checkout in /checkout. It lives as long as the test that has booted it. */
export class SystemdBox {
  readonly #leader: string;
  readonly #unit: string;
  readonly journal: JournalLine[] = [];
  readonly #waiting = new Set<() => void>();
  #over = false;

  private constructor(leader: string, unit: string) {
    this.#leader = leader;
    this.#unit = unit;
  }

  /** @param unit whose journal and properties a test looks at */
  static async boot(t: Test, unit = SERVICE): Promise<SystemdBox> {
    t.setTimeout(FILE_MS);
    const script = spawn(SCRIPT, [ROOT], { stdio: ['pipe', 'pipe', 'inherit'] });
    const exited = once(script, 'exit');
    t.teardown(async () => {
      script.stdin.end();
      await exited;
    });
    const [said] = await Promise.race([
      once(createInterface({ input: script.stdout }), 'line'),
      exited.then(() => ['']),
    ]);
    if (/^\d+$/.test(said)) {
      const box = new SystemdBox(said, unit);
      box.#followJournal(t);
      return box;
    }
    const [code] = await exited;
    const hint = code === CANNOT ? `; it needs root and: ${INSTALL.systemd}` : '';
    throw new Error(`systemd-box.sh ended with ${code}: ${said}${hint}`);
  }

  /** Boots one and puts the service in it, with the test application. */
  static async withService(t: Test, settings: Readonly<Record<string, string>> = {}): Promise<SystemdBox> {
    const box = await SystemdBox.boot(t);
    await box.ok(MANAGE, 'install', '--offline');
    await box.sh(`install -d /opt/master-agent/app && cp /checkout/test/fixtures/box-app.mjs ${APP}`);
    await box.settings(settings);
    return box;
  }

  /** Writes the environment file of the service. */
  async settings(settings: Readonly<Record<string, string>>): Promise<void> {
    const lines = Object.entries({ APP, ...settings }).map(([name, value]) => `${name}=${value}\n`);
    await this.write('/etc/master-agent/master-agent.env', lines.join(''));
  }

  /** Adds to the unit, as `systemctl edit` does. */
  async edit(lines: string): Promise<void> {
    await this.sh('mkdir -p /etc/systemd/system/master-agent.service.d');
    await this.write('/etc/systemd/system/master-agent.service.d/test.conf', lines);
    await this.ok('systemctl', 'daemon-reload');
  }

  spawn(...command: string[]): Running {
    const inside = [
      'env',
      '-i',
      'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
      'HOME=/root',
      'SYSTEMD_PAGER=',
      'LANG=C.UTF-8',
    ];
    const child = spawn('nsenter', ['--target', this.#leader, '--all', '--', ...inside, ...command], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    const waiting = new Set<() => void>();
    const wake = (): void => {
      for (const look of [...waiting]) look();
    };
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
      wake();
    });
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    let ended = false;
    const result = once(child, 'close').then(([code]) => {
      ended = true;
      wake();
      return { code, stdout, stderr };
    });
    const line = (text: string): Promise<string> =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = stdout.split('\n').find((candidate) => candidate.includes(text));
          if (found === undefined && !ended) return;
          waiting.delete(look);
          if (found !== undefined) resolve(found);
          else reject(new Error(`${command.join(' ')} ended without "${text}":\n${stdout}${stderr}`));
        };
        waiting.add(look);
        look();
      });
    return { child, result, line };
  }

  run(...command: string[]): Promise<Result> {
    const running = this.spawn(...command);
    running.child.stdin?.end();
    return running.result;
  }

  /** @returns its standard output. @throws when it fails */
  async ok(...command: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...command);
    if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}:\n${stdout}${stderr}`);
    return stdout;
  }

  sh(script: string): Promise<string> {
    return this.ok('sh', '-c', script);
  }

  async write(path: string, text: string): Promise<void> {
    const running = this.spawn('tee', path);
    running.child.stdin?.end(text);
    const { code, stderr } = await running.result;
    if (code !== 0) throw new Error(`${path} could not be written: ${stderr}`);
  }

  /** A property of the unit, as `systemctl show` names it. */
  async property(name: string, unit = this.#unit): Promise<string> {
    return (await this.ok('systemctl', 'show', '--value', `--property=${name}`, unit)).trim();
  }

  /**
   * Waits until the unit has come to a state that nothing in the journal tells of.
   * @throws Error, with the end of the journal, when the unit has failed instead, or nothing happens
   */
  async untilProperty(name: string, value: string, unit = this.#unit): Promise<void> {
    const untilMs = performance.now() + PROPERTY_MS;
    for (;;) {
      if ((await this.property(name, unit)) === value) return;
      const state = await this.property('ActiveState', unit);
      if (performance.now() < untilMs && (state !== 'failed' || value === 'failed')) continue;
      const end = this.journal.slice(-20).map(({ text }) => text);
      throw new Error(`${unit} is ${state}, want ${name} ${value}:\n${end.join('\n')}`);
    }
  }

  /** Asks the service for a path; what curl says of it. */
  curl(path: string, ...options: string[]): Promise<Result> {
    return this.run('curl', '--silent', '--show-error', ...options, `http://localhost:8000${path}`);
  }

  /** Sends a request that is answered when it is released, and comes back when it is in flight. */
  async hold(name: string): Promise<{ answer: Promise<Result>; release(): Promise<void> }> {
    const gate = `${STATE_DIR}/${name}`;
    await this.sh(`rm -f ${gate}; mkfifo ${gate}; chown master-agent ${gate}`);
    const mark = this.mark();
    const answer = this.curl(`/hold/${name}`);
    await this.line(`holding ${name}`, mark);
    return { answer, release: async () => void (await this.sh(`echo go > ${gate}`)) };
  }

  /** The place in the journal from which on a test looks. */
  mark(): number {
    return this.journal.length;
  }

  /** Waits for a line of the journal that contains `text`. */
  async line(text: string, from = 0): Promise<JournalLine> {
    for (;;) {
      const found = this.journal.slice(from).find((line) => line.text.includes(text));
      if (found !== undefined) return found;
      if (this.#over) throw new Error(`the journal ended without "${text}":\n${this.tail()}`);
      await new Promise<void>((wake) => this.#waiting.add(wake));
    }
  }

  /** The end of the journal, for messages. */
  tail(): string {
    return this.journal
      .slice(-30)
      .map(({ from, text }) => `${from}: ${text}`)
      .join('\n');
  }

  #followJournal(t: Test): void {
    const follower = this.spawn(
      'journalctl',
      '--follow',
      '--lines=all',
      '--output=json',
      `--unit=${this.#unit}`,
    );
    t.teardown(async () => {
      if (!t.passing()) console.error(await this.sh(`journalctl --unit=${this.#unit} --lines=60 --no-pager`));
      follower.child.kill();
    });
    if (follower.child.stdout === null) return;
    createInterface({ input: follower.child.stdout })
      .on('line', (line) => {
        const entry = JSON.parse(line);
        this.journal.push({
          text: String(entry.MESSAGE),
          priority: Number(entry.PRIORITY),
          from: String(entry.SYSLOG_IDENTIFIER),
          pid: Number(entry._PID),
        });
        this.#wake();
      })
      .on('close', () => {
        this.#over = true;
        this.#wake();
      });
  }

  #wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }
}
