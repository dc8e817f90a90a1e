import { type FileHandle, open } from 'node:fs/promises';
import { checkSum, HASH_MARK, NOTHING, parseSeal, SEAL_MARK, type Seal, sealHash } from './seal.ts';

/** What is wrong with the first line that is. */
export type Damage = 'changed' | 'dropped' | 'reordered' | 'torn' | 'from another chain' | 'cut';

export interface Finding {
  readonly damage: Damage;
  readonly file: string;
  /** Counted from 1; for what is missing, the line it should stand before. */
  readonly line: number;
  readonly detail: string;
}

/** What was found in a set of files, read in the order in which they were written. */
export interface Verdict {
  readonly finding: Finding | undefined;
  readonly files: number;
  readonly records: number;
  readonly seals: number;
  readonly chains: number;
  readonly bytes: number;
  /** ISO 8601, of the first and the last seal. */
  readonly from: string | undefined;
  readonly to: string | undefined;
  readonly head: string | undefined;
  /** What nobody can see from these files alone. */
  readonly unseen: readonly string[];
}

export interface VerifyOptions {
  readonly key?: Buffer | undefined;
  /** The hash of a seal that was kept elsewhere: it has to be in the log. */
  readonly head?: string | undefined;
  /** Hears how many bytes were read so far. */
  readonly progress?: (bytes: number) => void;
}

const CHUNK_BYTES = 1024 * 1024;
const NEWLINE = 0x0a;
/** How many seals of a chain a new one may be behind when it names the one it follows. */
const RECENT = 64;

interface ChainState {
  seq: number;
  final: boolean;
  /** The newest last. */
  readonly recent: string[];
}

/**
 * Walks the chains over all files. Streams: it keeps one write in memory and the state of each chain.
 * @throws the system's error when a file cannot be read
 */
export async function verify(files: readonly string[], options: VerifyOptions = {}): Promise<Verdict> {
  const walk = new Walk(options);
  for (const file of files) {
    const handle = await open(file, 'r');
    try {
      await walk.file(file, handle);
    } finally {
      await handle.close();
    }
    if (walk.finding !== undefined) break;
  }
  return walk.verdict(files);
}

class Walk {
  finding: Finding | undefined;
  readonly #options: VerifyOptions;
  readonly #chains = new Map<string, ChainState>();
  #records = 0;
  #seals = 0;
  #bytes = 0;
  #from: string | undefined;
  #to: string | undefined;
  #last: Seal | undefined;
  #headSeen = false;
  /** What the first write follows, when that is not in these files. */
  #continues = false;
  /** Files that do not say what they follow. */
  readonly #orphans: string[] = [];
  #file = '';
  /** Lines of this file before the write that is looked at. */
  #line = 0;

  constructor(options: VerifyOptions) {
    this.#options = options;
  }

  async file(file: string, handle: FileHandle): Promise<void> {
    this.#file = file;
    this.#line = 0;
    let buffer: Buffer = Buffer.alloc(0);
    let searched = 0;
    for (let position = 0; ; ) {
      // Of the chunk before, only the write that is not whole yet is kept.
      const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
      const { bytesRead } = await handle.read(chunk, 0, CHUNK_BYTES, position);
      position += bytesRead;
      this.#bytes += bytesRead;
      this.#options.progress?.(this.#bytes);
      buffer =
        buffer.length === 0
          ? chunk.subarray(0, bytesRead)
          : Buffer.concat([buffer, chunk.subarray(0, bytesRead)]);
      let start = 0;
      for (;;) {
        const at = findSealLine(buffer, searched);
        const end = at === -1 ? -1 : buffer.indexOf(NEWLINE, at);
        if (end === -1) {
          // The mark itself may be cut in two by the end of the chunk.
          searched = at === -1 ? Math.max(start, buffer.length - SEAL_MARK.length) : at;
          break;
        }
        this.#write(buffer, start, at, end);
        if (this.finding !== undefined) return;
        start = end + 1;
        searched = start;
      }
      buffer = buffer.subarray(start);
      searched -= start;
      if (bytesRead === 0) break;
    }
    if (buffer.length > 0) this.#unsealed(buffer);
  }

  /** One write: records from `start`, their seal from `at` to `end`. */
  #write(buffer: Buffer, start: number, at: number, end: number): void {
    const seal = parseSeal(buffer.toString('utf8', at, end));
    const mark = buffer.indexOf(HASH_MARK, at);
    if (seal !== undefined && mark !== -1) {
      const sealed = sealHash(this.#options.key).update(buffer.subarray(start, mark)).digest('hex');
      if (sealed === seal.hash && this.#follows(seal, buffer, start)) {
        this.#accept(seal);
        return;
      }
    }
    this.finding ??= this.#explain(seal, linesOf(buffer, start, at), linesOf(buffer, end + 1, buffer.length));
  }

  /** Whether a seal that is right in itself stands where it belongs; if not, the finding is set. */
  #follows(seal: Seal, buffer: Buffer, start: number): boolean {
    const known = this.#chains.get(seal.chain);
    if (known === undefined) return this.#begins(seal, buffer, start);
    if (seal.seq === known.seq + 1 && seal.previous === known.recent.at(-1)) return true;
    if (seal.seq > known.seq + 1) {
      const missing =
        seal.seq === known.seq + 2 ? `seal ${known.seq + 1}` : `seals ${known.seq + 1} to ${seal.seq - 1}`;
      this.#find(
        'dropped',
        1,
        `${missing} of chain ${seal.chain}, with all records they sealed, missing before this line`,
      );
    } else if (seal.seq <= known.seq) {
      this.#find('reordered', 1, `seal ${seal.seq} of chain ${seal.chain} stands behind seal ${known.seq}`);
    } else
      this.#find(
        'from another chain',
        1,
        `seal ${seal.seq} does not follow seal ${known.seq} of chain ${seal.chain}`,
      );
    return false;
  }

  /** A chain begins with a record that says so, and follows what was the last seal then. */
  #begins(seal: Seal, buffer: Buffer, start: number): boolean {
    const opens = buffer.toString('utf8', start, start + 14) === '{"type":"open"';
    if (!opens) {
      this.#find('from another chain', 1, `chain ${seal.chain} was not opened in this log`);
      return false;
    }
    if (this.#chains.size === 0) {
      this.#continues = seal.previous !== NOTHING;
      this.#headSeen ||= seal.previous === this.#options.head;
      return true;
    }
    for (const { recent } of this.#chains.values()) if (recent.includes(seal.previous)) return true;
    if (seal.previous === NOTHING && this.#line === 0) {
      this.#orphans.push(this.#file);
      return true;
    }
    this.#find(
      seal.previous === NOTHING ? 'from another chain' : 'dropped',
      1,
      seal.previous === NOTHING
        ? `chain ${seal.chain} says that nothing was before it`
        : `chain ${seal.chain} follows a seal (${seal.previous.slice(0, 12)}…) that is missing before this line`,
    );
    return false;
  }

  #accept(seal: Seal): void {
    const known = this.#chains.get(seal.chain);
    if (known === undefined)
      this.#chains.set(seal.chain, { seq: seal.seq, final: seal.final, recent: [seal.hash] });
    else {
      known.seq = seal.seq;
      known.final = seal.final;
      known.recent.push(seal.hash);
      if (known.recent.length > RECENT) known.recent.shift();
    }
    this.#headSeen ||= seal.hash === this.#options.head;
    this.#records += seal.records;
    this.#seals += 1;
    this.#line += seal.records + 1;
    this.#from ??= seal.time;
    this.#to = seal.time;
    this.#last = seal;
  }

  /** Which line of a write is wrong, from the check sums in its seal. `next` are the lines that come behind it. */
  #explain(seal: Seal | undefined, lines: readonly Buffer[], next: readonly Buffer[]): Finding {
    const sealLine = lines.length + 1;
    if (seal === undefined) return this.#find('changed', sealLine, 'this seal cannot be read');
    const want = Array.from({ length: seal.records }, (_, index) =>
      seal.lines.slice(index * 8, index * 8 + 8),
    );
    const got = lines.map(checkSum);
    const at = want.findIndex((sum, index) => sum !== got[index]);
    if (at === -1 && got.length === want.length) {
      return this.#find(
        'changed',
        sealLine,
        'the records are as they were sealed, but their seal is not, or the key is wrong',
      );
    }
    const [first, second] = at === -1 ? [want.length, want.length] : [at, at + 1];
    // More lines than were sealed: another write's, whose own seal is damaged or gone.
    if (got.length > want.length && got.slice(-want.length).join() === want.join()) {
      const stray = lines[got.length - want.length - 1]?.toString('utf8') ?? '';
      return looksLikeSeal(stray)
        ? this.#find('changed', got.length - want.length, 'this line was a seal')
        : this.#find(
            'dropped',
            got.length - want.length + 1,
            'the seal that should stand before this line is missing',
          );
    }
    if (got[first] !== undefined && got[first] === want[second]) {
      return got[second] === want[first]
        ? this.#find('reordered', first + 1, 'this line and the next have changed places')
        : got.includes(want[first] ?? '')
          ? this.#find('reordered', first + 1, 'this line stood further down')
          : this.#find('dropped', first + 1, 'the record that should stand before this line is missing');
    }
    if (got.includes(want[first] ?? '')) {
      return want.includes(got[first] ?? '')
        ? this.#find('reordered', first + 1, 'this line stood further down')
        : this.#find('from another chain', first + 1, 'this line was not sealed here');
    }
    if (got.length < want.length) {
      if (got[first] !== undefined && !want.includes(got[first])) {
        return this.#find('changed', first + 1, 'this record is not as it was sealed');
      }
      return next.some((line) => checkSum(line) === want[first])
        ? this.#find('reordered', first + 1, 'the line that should stand here stands behind the seal')
        : this.#find('dropped', first + 1, 'the record that should stand before this line is missing');
    }
    return this.#find('changed', first + 1, 'this record is not as it was sealed');
  }

  /** What stands at the end of a file behind its last seal. */
  #unsealed(rest: Buffer): void {
    const lines = linesOf(rest, 0, rest.length);
    const whole = rest[rest.length - 1] === NEWLINE;
    if (looksLikeSeal(lines.at(-1)?.toString('utf8') ?? '')) {
      this.#find(whole ? 'changed' : 'torn', lines.length, 'this seal cannot be read');
      return;
    }
    const count = `${lines.length} line${lines.length === 1 ? '' : 's'} without a seal`;
    const detail = whole
      ? `the log ends with ${count}`
      : `the log ends in the middle of a line, with ${count}`;
    this.#find('torn', 1, detail);
  }

  /** @param line within the write that is looked at, counted from 1 */
  #find(damage: Damage, line: number, detail: string): Finding {
    this.finding = { damage, file: this.#file, line: this.#line + line, detail };
    return this.finding;
  }

  verdict(files: readonly string[]): Verdict {
    const { head } = this.#options;
    if (this.finding === undefined && head !== undefined && !this.#headSeen) {
      this.#find('cut', 1, `the seal that was kept (${head.slice(0, 12)}…) is missing: the end was cut off`);
    }
    const open = [...this.#chains].filter(([, { final }]) => !final);
    const unseen: string[] = [];
    if (this.#continues) unseen.push('the log begins before the first file given');
    if (
      this.#last !== undefined &&
      !this.#last.final &&
      open.some(([chain]) => chain === this.#last?.chain)
    ) {
      unseen.push(
        'the last chain is not closed: its writer still runs, or was killed, or the end was cut off',
      );
    }
    if (this.#options.key === undefined) {
      unseen.push('without a key whoever can write the file can also rewrite it whole, seals included');
    }
    if (head === undefined)
      unseen.push('without a head that was kept elsewhere, an end cut off at a seal cannot be seen');
    return {
      finding: this.finding,
      files: files.length,
      records: this.#records,
      seals: this.#seals,
      chains: this.#chains.size,
      bytes: this.#bytes,
      from: this.#from,
      to: this.#to,
      head: this.#last?.hash,
      unseen,
    };
  }
}

/** The next line that begins like a seal, from `from` on; a mark inside a line is none. */
function findSealLine(buffer: Buffer, from: number): number {
  for (let at = buffer.indexOf(SEAL_MARK, from); at !== -1; at = buffer.indexOf(SEAL_MARK, at + 1)) {
    if (at === 0 || buffer[at - 1] === NEWLINE) return at;
  }
  return -1;
}

/** Whether a damaged line was a seal: of what only a seal has, most is still there. */
function looksLikeSeal(line: string): boolean {
  const marks = [SEAL_MARK, '"lines":"', '"previous":"', HASH_MARK];
  return marks.filter((mark) => line.includes(mark)).length >= 3;
}

/** The lines in a part of a buffer, without their line breaks. What the last one lacks is not made up. */
function linesOf(buffer: Buffer, start: number, end: number): Buffer[] {
  const lines: Buffer[] = [];
  for (let at = start; at < end; ) {
    const newline = buffer.indexOf(NEWLINE, at);
    const stop = newline === -1 || newline >= end ? end : newline;
    lines.push(buffer.subarray(at, stop));
    at = stop + 1;
  }
  return lines;
}
