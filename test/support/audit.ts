import { closeSync, constants, existsSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Test } from 'tap';
import { AuditLog, type AuditLogOptions } from '../../src/audit/audit-log.ts';
import { type Verdict, type VerifyOptions, verify } from '../../src/audit/verify.ts';
import { ServiceProcess, type SpawnOptions } from './service-process.ts';

/** One line of an audit log. */
export interface AuditRecord {
  readonly type: string;
  readonly time: string;
  readonly [field: string]: unknown;
}

/** Every line of a log, seals too. @throws when one is not JSON */
export function readLines(file: string): AuditRecord[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

/** The records of a log, without its seals. */
export function readRecords(file: string, type?: string): AuditRecord[] {
  return readLines(file).filter((record) =>
    type === undefined ? record.type !== 'seal' : record.type === type,
  );
}

/** Opens a log in this process. A failure is the test's. */
export function openLog(file: string, options: Partial<AuditLogOptions> = {}): AuditLog {
  // A log that a test leaves open, as a kill would, notices that the directory of the test is gone.
  const lost = (error: Error): void => {
    if (existsSync(dirname(file))) throw error;
  };
  return AuditLog.open({
    file,
    mode: 'batched',
    key: undefined,
    lost,
    fallback: () => undefined,
    ...options,
  });
}

/** One run that writes batches of so many records, each batch in one write, and closes the log unless told not to. */
export async function writeRun(
  file: string,
  batches: readonly number[],
  {
    label = 'a',
    close = true,
    ...options
  }: Partial<AuditLogOptions> & { label?: string; close?: boolean } = {},
): Promise<AuditLog> {
  const log = openLog(file, options);
  for (const [batch, records] of batches.entries()) {
    for (let index = 0; index < records; index += 1) {
      log.record('request', { id: `${label}-${batch}-${index}`, path: `/orders/${index}`, status: 200 });
    }
    await log.kept();
  }
  if (close) await log.close();
  return log;
}

/** Verifies bytes as if they were a log. */
export function verifyBytes(dir: string, bytes: Buffer, options: VerifyOptions = {}): Verdict {
  const file = join(dir, 'tampered.ndjson');
  // Not cut to nothing first: ext4 would put each of thousands of files on disk.
  const fd = openSync(file, constants.O_RDWR | constants.O_CREAT);
  writeSync(fd, bytes, 0, bytes.length, 0);
  ftruncateSync(fd, bytes.length);
  closeSync(fd);
  return verify([file], options);
}

/** A log as lines, each with its line break. */
export function linesOf(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(0x0a, at) + 1;
    lines.push(bytes.subarray(at, end));
    at = end;
  }
  return lines;
}

/** What a command of the service has come to. */
export interface CommandEnd {
  readonly code: number | null;
  readonly lines: readonly string[];
}

/** Runs `master-agent` with these arguments to its end. */
export async function command(
  t: Test,
  args: readonly string[],
  options: Omit<SpawnOptions, 'args'> = {},
): Promise<CommandEnd> {
  const child = ServiceProcess.spawn(t, { ...options, args });
  const { code } = await child.exited;
  return { code, lines: child.lines };
}
