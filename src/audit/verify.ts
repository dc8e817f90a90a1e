import { type Broken, type Explanation, explain, explainUnsealed, type Place } from './explain.ts';
import { NOTHING, OPENS, parseSeal, type Seal, sealHash, UNSEALED_BYTES } from './seal.ts';
import { linesFrom, linesOf, type Write, writesOf } from './writes.ts';

export type { Damage } from './explain.ts';

/** The first line that is wrong; counted from 1 within its file. */
export interface Finding extends Explanation {
  readonly file: string;
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
  /** How long a write at the end of a file may take to become whole: the log may be in use. Default 0. */
  readonly patienceMs?: number;
}

/** How many seals of a chain, and how many that were kept of it, a new one may be behind when it names the one it follows. */
const RECENT = 64;

interface ChainState {
  readonly seq: number;
  readonly final: boolean;
  /** Hashes, the newest last. */
  readonly recent: readonly string[];
  /** Those that were kept as the head: of its first seal, and of its last one in each file. */
  readonly anchors: readonly string[];
}

/**
 * Walks the chains over all files, as far as they are right. Streams: one write is in memory, and the end of each
 * chain.
 * @throws the system's error when a file cannot be read
 */
export function verify(files: readonly string[], options: VerifyOptions = {}): Verdict {
  const walk = new Walk(options);
  for (const file of files) if (!walk.file(file)) break;
  return walk.verdict(files.length);
}

class Walk {
  readonly #options: VerifyOptions;
  readonly #chains = new Map<string, ChainState>();
  #finding: Finding | undefined;
  #records = 0;
  #seals = 0;
  #bytes = 0;
  #from: string | undefined;
  #last: Seal | undefined;
  #headSeen = false;
  /** The first write follows one that is not in these files. */
  #continues = false;
  readonly #unseen: string[] = [];
  #file = '';
  /** Lines of this file before the write that is looked at. */
  #line = 0;

  constructor(options: VerifyOptions) {
    this.#options = options;
  }

  /** @returns false when something is wrong with it */
  file(file: string): boolean {
    this.#file = file;
    this.#line = 0;
    const heard = (bytes: number): void => {
      this.#bytes += bytes;
      this.#options.progress?.(this.#bytes);
    };
    const writes = writesOf(file, { heard, patienceMs: this.#options.patienceMs });
    for (const write of writes) {
      const wrong = this.#write(write);
      if (wrong !== undefined) {
        this.#find(wrong);
        return false;
      }
    }
    return true;
  }

  /** @returns what is wrong with it */
  #write({ bytes, sealAt, end }: Write): Explanation | undefined {
    if (sealAt === undefined) return explainUnsealed(bytes);
    const sealLine = bytes.toString('utf8', sealAt, bytes.length - 1);
    const seal = parseSeal(sealLine);
    const opening = openingOf(bytes);
    const place = seal === undefined ? 'next' : this.#place(seal, opening);
    if (seal !== undefined && isSealed(bytes, seal, this.#options.key)) {
      const wrong = this.#standsWrong(seal, place, opening !== undefined);
      if (wrong === undefined) this.#accept(seal, opening !== undefined);
      return wrong;
    }
    const broken: Broken = {
      lines: linesOf(bytes.subarray(0, sealAt)),
      sealLine,
      place,
      known: seal !== undefined && this.#chains.has(seal.chain),
      key: this.#options.key,
      following: linesFrom(this.#file, end),
    };
    return explain(broken);
  }

  #place({ chain, seq, previous }: Seal, opening: string | undefined): Place {
    const known = this.#chains.get(chain);
    if (known !== undefined) {
      if (seq <= known.seq) return 'behind';
      if (seq > known.seq + 1) return 'ahead';
      return previous === known.recent.at(-1) ? 'next' : 'foreign';
    }
    if (this.#chains.size === 0) return 'next';
    // One of several writers: it comes from the files before the first one given, or follows what is in them.
    if (this.#continues && (seq > 1 || opening === 'join')) return 'next';
    for (const { recent, anchors } of this.#chains.values()) {
      if (recent.includes(previous) || anchors.includes(previous)) return 'next';
    }
    if (previous !== NOTHING) return 'ahead';
    return this.#line === 0 ? 'next' : 'foreign';
  }

  /** What is wrong with a write that is as it was sealed. */
  #standsWrong(seal: Seal, place: Place, opens: boolean): Explanation | undefined {
    const { chain, seq, previous } = seal;
    const seen = this.#chains.get(chain)?.seq;
    if (seen === undefined && !opens) {
      const detail = `chain ${chain} was not opened in this log: it is another's, or its beginning is missing`;
      return { damage: 'from another chain', line: 1, detail };
    }
    switch (place) {
      case 'next':
        return undefined;
      case 'ahead': {
        const missing =
          seen === undefined
            ? `the seal that chain ${chain} follows (${previous.slice(0, 12)}…) is`
            : seq === seen + 2
              ? `seal ${seen + 1} of chain ${chain}, with all records it sealed, is`
              : `seals ${seen + 1} to ${seq - 1} of chain ${chain}, with all records they sealed, are`;
        return { damage: 'dropped', line: 1, detail: `${missing} missing before this line` };
      }
      case 'behind': {
        const detail = `seal ${seq} of chain ${chain} stands behind seal ${seen}`;
        return { damage: 'reordered', line: 1, detail };
      }
      case 'foreign': {
        const detail =
          seen === undefined
            ? `chain ${chain} says that nothing was before it`
            : `seal ${seq} does not follow seal ${seen} of chain ${chain}`;
        return { damage: 'from another chain', line: 1, detail };
      }
    }
  }

  /** @param opens it begins with a record that opens the log, or a new file of it */
  #accept(seal: Seal, opens: boolean): void {
    const { chain, seq, hash, previous, final } = seal;
    const known = this.#chains.get(chain);
    if (this.#chains.size === 0) {
      this.#continues = previous !== NOTHING;
      this.#headSeen ||= previous === this.#options.head;
    } else if (known === undefined && previous === NOTHING) {
      this.#unseen.push(`${this.#file} does not say what it follows: it may be another log`);
    }
    // Of a chain that is closed only the end can be followed.
    const recent = final ? [hash] : [...(known?.recent ?? []), hash].slice(-RECENT);
    const anchors = opens
      ? [...(known?.anchors ?? []), seq === 1 ? hash : previous].slice(-RECENT)
      : (known?.anchors ?? []);
    this.#chains.set(chain, { seq, final, recent, anchors });
    this.#headSeen ||= hash === this.#options.head;
    this.#records += seal.records;
    this.#seals += 1;
    this.#line += seal.records + 1;
    this.#from ??= seal.time;
    this.#last = seal;
  }

  /** @param explanation counts its lines from the write that is looked at */
  #find(explanation: Explanation): void {
    this.#finding = { ...explanation, file: this.#file, line: this.#line + explanation.line };
  }

  verdict(files: number): Verdict {
    const { head, key } = this.#options;
    if (this.#finding === undefined && head !== undefined && !this.#headSeen) {
      const detail = `the seal that was kept (${head.slice(0, 12)}…) is missing: the end was cut off`;
      this.#find({ damage: 'cut', line: 1, detail });
    }
    const last = this.#last;
    const unseen = [...this.#unseen];
    if (this.#continues) unseen.push('the log begins before the first file given');
    if (last !== undefined && !last.final) {
      unseen.push(
        'the last chain is not closed: its writer still runs, or was killed, or the end was cut off',
      );
    }
    if (key === undefined) {
      unseen.push('without a key whoever can write the file can also rewrite it whole, seals included');
    }
    if (head === undefined) {
      unseen.push('without a head that was kept elsewhere, an end cut off at a seal cannot be seen');
    }
    return {
      finding: this.#finding,
      files,
      records: this.#records,
      seals: this.#seals,
      chains: this.#chains.size,
      bytes: this.#bytes,
      from: this.#from,
      to: last?.time,
      head: last?.hash,
      unseen,
    };
  }
}

/** The reason in the record that opens the log, or a new file of it; undefined when the write begins with another one. */
function openingOf(bytes: Buffer): string | undefined {
  if (bytes.toString('latin1', 0, OPENS.length) !== OPENS) return undefined;
  try {
    return String(JSON.parse(String(linesOf(bytes)[0])).reason);
  } catch {
    return '';
  }
}

function isSealed(bytes: Buffer, seal: Seal, key: Buffer | undefined): boolean {
  const sealed = bytes.subarray(0, bytes.length - UNSEALED_BYTES);
  return sealHash(key).update(sealed).digest('hex') === seal.hash;
}
