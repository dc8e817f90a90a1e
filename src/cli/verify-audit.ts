import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { createGunzip } from 'node:zlib';
import { numberOf } from '../audit/audit-file.ts';
import { readHead } from '../audit/head.ts';
import { type Verdict, verify } from '../audit/verify.ts';
import { auditFile } from '../config/settings.ts';
import { messageOf } from '../error.ts';
import { ExitCode } from '../exit-code.ts';
import { readAuditKey } from '../platform/secrets.ts';
import { plural } from '../plural.ts';
import { complain } from './help.ts';
import { commandConfig } from './operator.ts';

const HELP = `usage: master-agent verify-audit [--json] [--from-start] [--head HASH] [--key-file FILE] [FILE…]

Walks the seals of the audit log and says whether it is valid, or at which line it is broken and why. Without FILE: the
log that the settings name, with the rotated ones beside it (audit.ndjson.2.gz, audit.ndjson.1, audit.ndjson). Give
files in the order of their writing. Those that end in .gz are unpacked in the directory for temporary files first.

  --from-start     the first file has to begin the log; default: older files may be gone
  --head HASH      a seal that was kept elsewhere and has to be in the log; default: what stands beside it in FILE.head
  --key-file FILE  the key it was sealed with; default: AUDIT_KEY_FILE
  --json           the verdict as JSON
  --help           this

exit: 0 valid, 1 broken, or with --from-start not from its start, 2 it could not be read
`;

/** A walk that takes longer than this shows how far it is. */
const PROGRESS_AFTER_MS = 1_000;
/** The service may be writing while we read: how long one write may take. */
const WRITE_MS = 50;

export async function run(args: readonly string[]): Promise<number> {
  let values: { json?: boolean; head?: string; 'key-file'?: string; 'from-start'?: boolean; help?: boolean };
  let files: string[];
  let newest: string;
  let key: Buffer | undefined;
  try {
    const parsed = parseArgs({
      args: [...args],
      options: {
        json: { type: 'boolean' },
        head: { type: 'string' },
        'key-file': { type: 'string' },
        'from-start': { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
      allowPositionals: true,
    });
    values = parsed.values;
    if (values.help) {
      process.stdout.write(HELP);
      return ExitCode.Ok;
    }
    const config = commandConfig();
    files = parsed.positionals;
    newest = files.at(-1) ?? '';
    if (files.length === 0) {
      const file = auditFile(config);
      if (file === undefined) throw new Error('AUDIT_LOG is off: there is no log to verify');
      newest = file;
      const older = rotated(file);
      // Rotated away while nothing runs, the log itself is only there again from the next start on.
      files = older.length > 0 && !existsSync(file) ? older : [...older, file];
    }
    const keyFile = values['key-file'];
    key = keyFile === undefined ? readAuditKey(config) : readFileSync(keyFile);
  } catch (error) {
    complain(error);
    return 2;
  }
  const scratch = files.some(isCompressed) ? mkdtempSync(join(tmpdir(), 'verify-audit-')) : undefined;
  try {
    const unpacked = new Map<string, string>();
    for (const [index, file] of files.entries()) {
      if (scratch === undefined || !isCompressed(file)) continue;
      const target = join(scratch, String(index));
      await pipeline(createReadStream(file), createGunzip(), createWriteStream(target));
      unpacked.set(file, target);
    }
    const total = files.reduce((sum, file) => sum + statSync(unpacked.get(file) ?? file).size, 0);
    const progress = progressBar(total);
    const head = values.head ?? readHead(newest);
    const verdict = verify(files, { key, head, progress, patienceMs: WRITE_MS, unpacked });
    progress(undefined);
    const isComplete = verdict.fromStart || values['from-start'] !== true;
    process.stdout.write(values.json ? `${JSON.stringify(verdict)}\n` : render(verdict, isComplete));
    return verdict.finding === undefined && isComplete ? ExitCode.Ok : 1;
  } catch (error) {
    process.stderr.write(`The audit log could not be read: ${messageOf(error)}\n`);
    return 2;
  } finally {
    if (scratch !== undefined) rmSync(scratch, { recursive: true, force: true });
  }
}

function isCompressed(file: string): boolean {
  return file.endsWith('.gz');
}

/** The rotated files beside a log, the oldest first: by number (`.2` before `.1`) or by date (`-20260102`). */
function rotated(file: string): string[] {
  const name = basename(file);
  const entries = readdirSync(dirname(file));
  // While one is being compressed there are two of it, and only the plain one is whole.
  const whole = new Map(entries.filter(isCompressed).map((entry) => [entry.slice(0, -'.gz'.length), entry]));
  for (const entry of entries) whole.set(entry, entry);
  const dated = [...whole.keys()].filter(
    (entry) => entry.startsWith(name) && /^-\d{8}[-\d]*$/.test(entry.slice(name.length)),
  );
  const numbered = [...whole.keys()]
    .flatMap((entry) => numberOf(entry, name) ?? [])
    .sort((one, other) => other - one)
    .map((number) => `${name}.${number}`);
  return [...dated.sort(), ...numbered].map((entry) => join(dirname(file), whole.get(entry) ?? entry));
}

/** @param isComplete false when the log had to begin in these files, and does not */
function render(verdict: Verdict, isComplete: boolean): string {
  const { finding, files, records, seals, chains, from, to, head, unseen } = verdict;
  const [all, written, own] = [plural(files, 'file'), plural(records, 'record'), plural(chains, 'chain')];
  const lines = isComplete ? [] : ['Incomplete: the first file does not begin the log'];
  if (finding === undefined) lines.push(`OK: ${written}, ${all}, ${own}`);
  else {
    lines.push(`Broken at ${finding.file}:${finding.line}: ${finding.detail}`);
    lines.push(`OK up to there: ${written}, ${own}`);
  }
  if (from !== undefined) lines.push(`Sealed: ${plural(seals, 'time')}, ${from} to ${to}`);
  if (finding === undefined && head !== undefined) lines.push(`Last seal: ${head}`);
  return `${[...lines, ...unseen.map((what) => `Not checked: ${what}`)].join('\n')}\n`;
}

/** Draws on standard error when that is a terminal; call it with undefined at the end. */
function progressBar(total: number): (bytes: number | undefined) => void {
  const beganMs = performance.now();
  let shown = -1;
  return (bytes) => {
    if (!process.stderr.isTTY || performance.now() - beganMs < PROGRESS_AFTER_MS) return;
    const percent = bytes === undefined ? -1 : Math.floor((bytes / total) * 100);
    if (percent === shown) return;
    shown = percent;
    const bar = '#'.repeat(Math.floor(percent / 4)).padEnd(25, '.');
    process.stderr.write(bytes === undefined ? '\r\x1b[2K' : `\r\x1b[2K[${bar}] ${percent} %`);
  };
}
