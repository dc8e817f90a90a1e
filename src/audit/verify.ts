import { type Explanation, explain, explainUnsealed } from './explain.ts';
import { NOTHING, OPENS, parseSeal, type Seal, sealHash, UNSEALED_BYTES, type Writer } from './seal.ts';
import { linesOf, type Write, writesOf } from './writes.ts';

/** The first line that is wrong, counted from 1 within its file, and why. */
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

/** How many seals of a chain a new one may be behind when it names the one it follows. */
const RECENT = 64;

/** How far a chain was walked. */
interface Chain {
  /** Of its last seal; of a chain that is only known by a note, what the note says. */
  seq: number;
  last: string;
  final: boolean;
  /** Hashes of its last seals, the newest last; empty when none of them is in these files. */
  readonly recent: string[];
  /** Its first line in these files, and the file of its last one. */
  readonly from: Pick<Finding, 'file' | 'line'>;
  file: string;
  /** The owner of the log has noted it; or there was no owner who notes. */
  isNoted: boolean;
  /** An owner has closed the log, or begun one, behind its last write: by its notes nothing of the chain can be missing. */
  isSettled: boolean;
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
  readonly #chains = new Map<string, Chain>();
  /** Hashes that were kept as heads: of a chain's first seal, and of its last one in each file. */
  readonly #anchors = new Set<string>();
  /** The chain of the owner who is writing, when it notes the others: before they did, logs had no such seals. */
  #owner: string | undefined;
  /** Some chain was opened by one who joined, or goes on from a file before. */
  #isShared = false;
  #finding: Finding | undefined;
  #records = 0;
  #seals = 0;
  #bytes = 0;
  #first: Seal | undefined;
  #last: Seal | undefined;
  #headSeen = false;
  readonly #unseen: string[] = [];
  #files = 0;
  #file = '';
  /** Lines of this file before the write that is looked at. */
  #line = 0;

  constructor(options: VerifyOptions) {
    this.#options = options;
  }

  /** The first write follows one that is not in these files. */
  get #continues(): boolean {
    return this.#first !== undefined && this.#first.previous !== NOTHING;
  }

  /** @returns false when something is wrong with it */
  file(file: string): boolean {
    this.#files += 1;
    this.#file = file;
    this.#line = 0;
    const heard = (bytes: number): void => {
      this.#bytes += bytes;
      this.#options.progress?.(this.#bytes);
    };
    for (const write of writesOf(file, { heard, patienceMs: this.#options.patienceMs })) {
      const wrong = this.#write(write);
      if (wrong !== undefined) this.#find(wrong.line, wrong.detail);
      if (this.#finding !== undefined) return false;
    }
    return true;
  }

  /** @returns what is wrong with it */
  #write({ bytes, sealAt }: Write): Explanation | undefined {
    if (sealAt === undefined) return explainUnsealed(bytes);
    const sealLine = bytes.toString('utf8', sealAt, bytes.length - 1);
    const seal = parseSeal(sealLine);
    if (seal === undefined || !isSealed(bytes, seal, this.#options.key)) {
      const before = seal === undefined ? undefined : this.#chains.get(seal.chain)?.seq;
      return explain(linesOf(bytes.subarray(0, sealAt)), sealLine, before, this.#options.key);
    }
    const opening = openingOf(bytes);
    const misplaced = this.#misplaced(seal, opening);
    if (misplaced !== undefined) return { line: 1, detail: misplaced };
    this.#first ??= seal;
    const missing = this.#compareNotes(seal, opening);
    if (missing !== undefined) return { line: 1, detail: missing };
    this.#accept(seal, opening);
    return undefined;
  }

  /** Why a write that is as it was sealed does not belong where it stands. */
  #misplaced({ chain, seq, previous, writers }: Seal, opening: string | undefined): string | undefined {
    const known = this.#chains.get(chain);
    if (opening === undefined && (known === undefined || known.recent.length === 0)) {
      return `chain ${chain} was not opened here: it is of another log, or its beginning is missing`;
    }
    if (known !== undefined) {
      if (seq <= known.seq) return `seal ${seq} of chain ${chain} stands behind its seal ${known.seq}`;
      if (seq === known.seq + 1) {
        return previous === known.last
          ? undefined
          : `this write does not follow seal ${known.seq} of chain ${chain}`;
      }
      // Known by a note alone: what is between stands in a file before these.
      return known.recent.length === 0
        ? undefined
        : `${missing(chain, known.seq + 1, seq - 1)} before this line`;
    }
    if (this.#first === undefined || this.#isKnown(previous)) return undefined;
    if (previous === NOTHING) {
      if (this.#line > 0) return `chain ${chain} says that nothing was before it`;
      this.#unseen.push(`${this.#file} does not say what it follows: it may be another log`);
      return undefined;
    }
    // A chain of the files before these goes on, or has joined what its owner began there. Another owner cannot.
    const isOne = opening !== 'start' && (writers === undefined || this.#owner === undefined);
    if (this.#continues && isOne) return undefined;
    return `the seal that chain ${chain} follows (${previous.slice(0, 12)}…) is missing before this line`;
  }

  #isKnown(hash: string): boolean {
    if (this.#anchors.has(hash)) return true;
    for (const { recent } of this.#chains.values()) if (recent.includes(hash)) return true;
    return false;
  }

  #accept(seal: Seal, opening: string | undefined): void {
    const { chain, seq, hash, previous, final, writers } = seal;
    const known = this.#chains.get(chain) ?? this.#newChain(seq, hash, final);
    this.#chains.set(chain, known);
    Object.assign(known, { seq, last: hash, final, file: this.#file, isSettled: false });
    if (writers !== undefined) known.isNoted = true;
    // Of a chain that is closed only the end can be followed.
    if (final) known.recent.length = 0;
    known.recent.push(hash);
    if (known.recent.length > RECENT) known.recent.shift();
    if (opening !== undefined) this.#anchors.add(seq === 1 ? hash : previous);
    if (opening !== undefined && opening !== 'start') this.#isShared = true;
    this.#headSeen ||= seal === this.#first && previous === this.#options.head;
    this.#last = seal;
    this.#headSeen ||= hash === this.#options.head;
    this.#records += seal.records;
    this.#seals += 1;
    this.#line += seal.records + 1;
  }

  #newChain(seq: number, last: string, final: boolean): Chain {
    const from = { file: this.#file, line: this.#line + 1 };
    return { seq, last, final, recent: [], from, file: this.#file, isNoted: false, isSettled: false };
  }

  /**
   * Holds what the owner of the log has noted of the others against what was walked.
   * @returns what is missing before the write that has the notes
   */
  #compareNotes({ chain, final, writers }: Seal, opening: string | undefined): string | undefined {
    for (const writer of writers ?? []) {
      const wrong = this.#compareNote(writer);
      if (wrong !== undefined) return wrong;
    }
    if (opening === 'start') {
      this.#settle(chain);
      this.#missNotes();
      this.#owner = undefined;
    }
    if (writers === undefined) return undefined;
    this.#owner = chain;
    if (final) this.#settle(chain);
    return undefined;
  }

  #compareNote({ chain, seq, seal, before, final }: Writer): string | undefined {
    const known = this.#chains.get(chain);
    if (known !== undefined && known.seq >= seq) {
      known.isNoted = true;
      const behind = known.seq - seq;
      const isSame = behind >= known.recent.length || known.recent.at(-1 - behind) === seal;
      return isSame ? undefined : `seal ${seq} of chain ${chain} is not the one that was noted`;
    }
    if (
      before &&
      this.#continues &&
      this.#files === 1 &&
      (known === undefined || known.recent.length === 0)
    ) {
      this.#chains.set(chain, { ...this.#newChain(seq, seal, final === true), isNoted: true });
      return undefined;
    }
    return `${missing(chain, (known?.seq ?? 0) + 1, seq)} before this line: the owner of the log had noted it`;
  }

  /** An owner closes the log, or the next one begins: by now each chain was noted, or is none of this log. */
  #settle(owner: string): void {
    for (const [name, chain] of this.#chains) {
      if (name !== owner && !chain.isNoted && this.#owner !== undefined && this.#finding === undefined) {
        // One who was killed just behind a rotation has not noted who wrote into the old file to the end.
        if (this.#owner !== owner && chain.file !== this.#file) this.#unseen.push(unnoted(name));
        else {
          const detail = `chain ${name} is of another log: the owner of this one never noted it`;
          this.#finding = { ...chain.from, detail };
        }
      }
      chain.isNoted = true;
      chain.isSettled = true;
      // Of what is over only the end can be followed.
      if (name !== owner) chain.recent.splice(0, chain.recent.length - 1);
    }
  }

  /** @param line counts from the write that is looked at */
  #find(line: number, detail: string): void {
    this.#finding = { file: this.#file, line: this.#line + line, detail };
  }

  verdict(files: number): Verdict {
    const { head } = this.#options;
    if (this.#finding === undefined && head !== undefined && !this.#headSeen) {
      this.#find(1, `the seal that was kept (${head.slice(0, 12)}…) is missing: the end was cut off`);
    }
    return {
      finding: this.#finding,
      files,
      records: this.#records,
      seals: this.#seals,
      chains: this.#chains.size,
      bytes: this.#bytes,
      from: this.#first?.time,
      to: this.#last?.time,
      head: this.#last?.hash,
      unseen: this.#whatIsUnseen(),
    };
  }

  /** Says once that several have written without an owner who noted them, as in logs of older versions. */
  #missNotes(): void {
    if (this.#owner !== undefined || !this.#isShared) return;
    this.#isShared = false;
    const what = 'no chain here notes the other writers: one of them, or the end of one, may be missing';
    if (!this.#unseen.includes(what)) this.#unseen.push(what);
  }

  #whatIsUnseen(): string[] {
    this.#missNotes();
    const unseen = [...this.#unseen];
    if (this.#continues) unseen.push('the log begins before the first file given');
    const owner = this.#owner === undefined ? undefined : this.#chains.get(this.#owner);
    if (this.#last !== undefined && !(owner ?? this.#last).final) {
      unseen.push(
        'the last chain is not closed: its writer still runs, or was killed, or the end was cut off',
      );
    }
    if (owner !== undefined && this.#finding === undefined) unseen.push(...this.#unsettled());
    if (this.#options.key === undefined) {
      unseen.push('without a key whoever can write the file can also rewrite it whole, seals included');
    }
    if (this.#options.head === undefined) {
      unseen.push('without a head that was kept elsewhere, an end cut off at a seal cannot be seen');
    }
    return unseen;
  }

  /** What other writers did behind the last note of the owner. */
  #unsettled(): string[] {
    return [...this.#chains].flatMap(([name, { seq, final, isNoted, isSettled }]) => {
      if (isSettled || name === this.#owner) return [];
      const open = `chain ${name} is not closed: what it has written behind its seal ${seq}, if anything`;
      return [...(isNoted ? [] : [unnoted(name)]), ...(final ? [] : [open])];
    });
  }
}

function unnoted(chain: string): string {
  return `chain ${chain} was not noted by the owner of the log: it may be of another`;
}

function missing(chain: string, from: number, to: number): string {
  return from === to
    ? `seal ${from} of chain ${chain}, with all records it sealed, is missing`
    : `seals ${from} to ${to} of chain ${chain}, with all records they sealed, are missing`;
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
