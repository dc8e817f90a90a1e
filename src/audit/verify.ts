import { type Explanation, explain } from './explain.ts';
import { isSealed, NOTHING, OPENS, parseSeal, type Seal, type Writer } from './seal.ts';
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
  /** Whether the first file given begins the log. */
  readonly fromStart: boolean;
  /** What cannot be seen from these files alone. */
  readonly unseen: readonly string[];
}

export interface VerifyOptions {
  readonly key?: Buffer | undefined;
  /** The hash of a seal that was kept elsewhere: it has to be in the log. */
  readonly head?: string | undefined;
  /** Hears how many bytes were read so far. */
  readonly progress?: (bytes: number) => void;
  /** Where a file that was compressed can be read. */
  readonly unpacked?: ReadonlyMap<string, string>;
  /** How long a write at the end of a file may take to become whole: the log may be in use. Default 0. */
  readonly patienceMs?: number;
}

/** How far a chain was walked. */
interface Chain {
  /** Of its last seal; of a chain that is only known by a note, what the note says. */
  readonly seq: number;
  readonly last: string;
  readonly final: boolean;
  /** Its first line in these files; undefined while it is only known by a note. */
  readonly from: Pick<Finding, 'file' | 'line'> | undefined;
  /** The file of its last line. */
  readonly file: string;
  /**
   * `noted`: by the owner of the log, or it is the owner. `settled`: an owner has closed the log, or begun one, behind
   * its last write, so by the notes nothing of it can be missing.
   */
  standing: 'unknown' | 'noted' | 'settled';
}

/** How many seals the one that a note or a new chain names may be behind. */
const RECENT = 1_024;

/**
 * Walks the chains over all files, as far as they are right. Streams: one write is in memory, and the end of each
 * chain.
 * @throws the system's error when a file cannot be read
 */
export function verify(files: readonly string[], options: VerifyOptions = {}): Verdict {
  const walk = new Walk(options);
  let finding: Finding | undefined;
  try {
    for (const file of files) walk.file(file);
    walk.end();
  } catch (error) {
    if (!(error instanceof Break)) throw error;
    finding = error.finding;
  }
  return { finding, files: files.length, ...walk.found(), unseen: walk.unseen(finding === undefined) };
}

/** Ends the walk. */
class Break extends Error {
  readonly finding: Finding;

  constructor(finding: Finding) {
    super(finding.detail);
    this.finding = finding;
  }
}

class Walk {
  readonly #options: VerifyOptions;
  readonly #chains = new Map<string, Chain>();
  /** The last seals of all chains. */
  readonly #recent: Seal[] = [];
  /** Hashes that were kept as heads: of a chain's first seal, and of its last one in each file. */
  readonly #anchors = new Set<string>();
  /** The chain of the current owner, if it notes the others. Logs of older versions have no such seals. */
  #owner: string | undefined;
  /** Some chain was opened by a worker, or continues from an earlier file. */
  #isShared = false;
  #records = 0;
  #seals = 0;
  #bytes = 0;
  #first: Seal | undefined;
  #last: Seal | undefined;
  #headSeen = false;
  readonly #unseen = new Set<string>();
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

  /** @throws Break */
  file(file: string): void {
    this.#files += 1;
    this.#file = file;
    this.#line = 0;
    const heard = (bytes: number): void => {
      this.#bytes += bytes;
      this.#options.progress?.(this.#bytes);
    };
    for (const write of writesOf(this.#options.unpacked?.get(file) ?? file, {
      heard,
      patienceMs: this.#options.patienceMs,
    }))
      this.#write(write);
  }

  /** @throws Break */
  end(): void {
    const { head } = this.#options;
    if (head !== undefined && !this.#headSeen)
      this.#break(`the seal that was kept (${head.slice(0, 12)}…) is missing: the end was cut off`);
  }

  /** @param line counts from the write that is looked at */
  #break(detail: string, line = 1): never {
    throw new Break({ file: this.#file, line: this.#line + line, detail });
  }

  #write(write: Write): void {
    const { bytes, sealAt } = write;
    const { key, head } = this.#options;
    const seal =
      sealAt === undefined ? undefined : parseSeal(bytes.toString('utf8', sealAt, bytes.length - 1));
    if (seal === undefined || !isSealed(bytes, seal, key)) {
      const before = seal && this.#chains.get(seal.chain)?.seq;
      const { line, detail } = explain(write, seal, before, key);
      this.#break(detail, line);
    }
    this.#first ??= seal;
    const opening = openingOf(bytes);
    this.#checkPlace(seal, opening);
    this.#checkNotes(seal, opening);
    this.#follow(seal, opening);
    this.#headSeen ||= seal.hash === head || (seal === this.#first && seal.previous === head);
    this.#last = seal;
    this.#recent.push(seal);
    if (this.#recent.length === 2 * RECENT) this.#recent.splice(0, RECENT);
    this.#records += seal.records;
    this.#seals += 1;
    this.#line += seal.records + 1;
  }

  /** Whether a write that is as it was sealed belongs where it stands. */
  #checkPlace(seal: Seal, opening: string | undefined): void {
    const { chain, seq, previous, writers } = seal;
    const known = this.#chains.get(chain);
    if (opening === undefined && known?.from === undefined) {
      this.#break(`chain ${chain} was not opened here: it is of another log, or its beginning is missing`);
    } else if (known !== undefined) {
      if (seq <= known.seq) this.#break(`seal ${seq} of chain ${chain} stands behind its seal ${known.seq}`);
      if (seq === known.seq + 1 && previous !== known.last)
        this.#break(`this write does not follow seal ${known.seq} of chain ${chain}`);
      // Of one that is known by a note alone the others stand in a file before these.
      if (seq > known.seq + 1 && known.from !== undefined)
        this.#break(`${missing(chain, known.seq + 1, seq - 1)} before this line`);
    } else if (seal !== this.#first && !this.#isKnown(previous)) {
      // A chain of the files before these goes on, or has joined what its owner began there. Another owner cannot.
      const mayContinue = opening !== 'start' && (writers === undefined || this.#owner === undefined);
      if (previous !== NOTHING && !(this.#continues && mayContinue))
        this.#break(
          `the seal that chain ${chain} follows (${previous.slice(0, 12)}…) is missing before this line`,
        );
      if (previous === NOTHING && this.#line > 0)
        this.#break(`chain ${chain} says that nothing was before it`);
      if (previous === NOTHING)
        this.#unseen.add(`${this.#file} does not say what it follows: it may be another log`);
    }
  }

  #isKnown(hash: string): boolean {
    return this.#anchors.has(hash) || this.#recent.some((seal) => seal.hash === hash);
  }

  /** Holds what the owner of the log has noted of the others against what was walked. */
  #checkNotes({ chain, final, writers }: Seal, opening: string | undefined): void {
    for (const writer of writers ?? []) this.#checkNote(writer);
    if (opening === 'start') {
      this.#settle(chain);
      this.#missOwner();
      this.#owner = undefined;
    }
    if (writers === undefined) return;
    this.#owner = chain;
    if (final) this.#settle(chain);
  }

  #checkNote({ chain, seq, seal, before, final }: Writer): void {
    const known = this.#chains.get(chain);
    if (known !== undefined && known.seq >= seq) {
      if (known.standing === 'unknown') known.standing = 'noted';
      const noted = this.#recent.find((recent) => recent.chain === chain && recent.seq === seq);
      if (noted !== undefined && noted.hash !== seal)
        this.#break(`seal ${seq} of chain ${chain} is not the one that was noted`);
    } else if (before && this.#continues && this.#files === 1 && known?.from === undefined) {
      const from = undefined;
      const isFinal = final === true;
      this.#chains.set(chain, {
        ...{ seq, last: seal, final: isFinal, from, file: this.#file },
        standing: 'noted',
      });
    } else {
      const what = missing(chain, (known?.seq ?? 0) + 1, seq);
      this.#break(`${what} before this line: the owner of the log had noted it`);
    }
  }

  /** An owner closes the log, or the next one begins: by now each chain was noted, or is none of this log. */
  #settle(owner: string): void {
    for (const [name, chain] of this.#chains) {
      if (name === owner) continue;
      if (chain.standing === 'unknown' && this.#owner !== undefined) {
        // An owner that was killed right after a rotation has not noted the last writers of the old file.
        if (this.#owner !== owner && chain.file !== this.#file) this.#unseen.add(unnoted(name));
        else if (chain.from !== undefined) {
          const detail = `chain ${name} is of another log: the owner of this one never noted it`;
          throw new Break({ ...chain.from, detail });
        }
      }
      chain.standing = 'settled';
    }
  }

  /** Several writers without an owner that noted them, as in logs of older versions. */
  #missOwner(): void {
    if (this.#owner === undefined && this.#isShared)
      this.#unseen.add(
        'no chain here notes the other writers: one of them, or the end of one, may be missing',
      );
  }

  #follow({ chain, seq, hash, previous, final, writers }: Seal, opening: string | undefined): void {
    const known = this.#chains.get(chain);
    const file = this.#file;
    const from = known?.from ?? { file, line: this.#line + 1 };
    const isUnknown = writers === undefined && (known === undefined || known.standing === 'unknown');
    const standing = isUnknown ? 'unknown' : 'noted';
    this.#chains.set(chain, { seq, last: hash, final, from, file, standing });
    if (opening === undefined) return;
    this.#anchors.add(seq === 1 ? hash : previous);
    if (opening !== 'start') this.#isShared = true;
  }

  /** What was walked. */
  found(): Omit<Verdict, 'finding' | 'files' | 'unseen'> {
    return {
      records: this.#records,
      seals: this.#seals,
      chains: this.#chains.size,
      bytes: this.#bytes,
      from: this.#first?.time,
      to: this.#last?.time,
      head: this.#last?.hash,
      fromStart: !this.#continues,
    };
  }

  unseen(isWhole: boolean): string[] {
    const { key, head } = this.#options;
    this.#missOwner();
    const unseen = [...this.#unseen];
    if (this.#continues) unseen.push('the log begins before the first file given');
    if (!isWhole) unseen.push('what stands behind that line');
    const owner = this.#owner === undefined ? undefined : this.#chains.get(this.#owner);
    if (isWhole && this.#last !== undefined && !(owner ?? this.#last).final)
      unseen.push(
        'the last chain is not closed: its writer still runs, or was killed, or the end was cut off',
      );
    if (owner !== undefined && isWhole) {
      for (const [name, { seq, final, standing }] of this.#chains) {
        if (standing === 'settled' || name === this.#owner) continue;
        if (standing === 'unknown') unseen.push(unnoted(name));
        if (!final)
          unseen.push(`chain ${name} is not closed: what it has written behind its seal ${seq}, if anything`);
      }
    }
    if (key === undefined)
      unseen.push('without a key whoever can write the file can also rewrite it whole, seals included');
    if (head === undefined)
      unseen.push('without a head that was kept elsewhere, an end cut off at a seal cannot be seen');
    return unseen;
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
