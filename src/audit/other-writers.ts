import type { Seal, Writer } from './seal.ts';

/** How often what the others have written is noted; that one begins or ends is noted at once. */
const NOTE_MS = 5_000;

/** The last seal of each other writer, as the owner of the log has seen it. */
export class OtherWriters {
  readonly #own: string;
  readonly #open = new Map<string, Writer>();
  /** Chains of which something is known that no seal of ours has named yet. */
  readonly #news = new Set<string>();
  #isUrgent = false;
  #notedMs = performance.now();

  /** @param found the ends of chains that the runs before have left */
  constructor(own: string, found: readonly Seal[]) {
    this.#own = own;
    this.saw(found, false);
  }

  /** @param before they stand in the file before the one that is written now */
  saw(seals: readonly Seal[], before: boolean): void {
    for (const { chain, seq, hash, final } of seals) {
      const known = this.#open.get(chain);
      if (chain === this.#own || (known !== undefined && known.seq >= seq)) continue;
      this.#isUrgent ||= final || known === undefined;
      this.#news.add(chain);
      this.#open.set(chain, {
        ...{ chain, seq, seal: hash },
        ...(final && { final }),
        ...(before && { before }),
      });
    }
  }

  get isDue(): boolean {
    return this.#isUrgent || (this.#news.size > 0 && performance.now() - this.#notedMs >= NOTE_MS);
  }

  /** For a seal: what is new since the last one. */
  news(): Writer[] {
    return this.#note([...this.#news]);
  }

  /** For the first seal of a new file: every writer that may continue in it. Writers without a line in the old file are dropped. */
  all(): Writer[] {
    for (const [chain, writer] of this.#open) {
      if (writer.before) this.#open.delete(chain);
      else this.#open.set(chain, { ...writer, before: true });
    }
    return this.#note([...this.#open.keys()]);
  }

  #note(chains: readonly string[]): Writer[] {
    const writers = chains.flatMap((chain) => this.#open.get(chain) ?? []);
    for (const { chain, final } of writers) if (final) this.#open.delete(chain);
    this.#news.clear();
    this.#isUrgent = false;
    this.#notedMs = performance.now();
    return writers;
  }
}
