/** Elsewhere than on a terminal, the least time between two versions of the same line. */
const LINE_MS = 1_000;

/** Shows what is going on: redrawn in place on a terminal, as plain lines at a bounded rate elsewhere. */
export class Progress {
  #shown = '';
  #shownMs = Number.NEGATIVE_INFINITY;
  #height = 1;

  /**
   * @param line everything in one line, which begins with what is going on and a colon
   * @param details what a terminal shows instead
   */
  show(line: string, details: readonly string[] = [line]): void {
    if (process.stdout.isTTY) this.#draw(details);
    else this.#print(line);
  }

  /** Ends it, and keeps or removes what a terminal shows. */
  end(what: 'kept' | 'gone' = 'gone'): void {
    if (process.stdout.isTTY && this.#shown !== '')
      process.stdout.write(what === 'kept' ? '\n' : this.#wiped);
    this.#shown = '';
  }

  #draw(lines: readonly string[]): void {
    // A line that the terminal wraps or scrolls away cannot be redrawn. Some terminals do not know their size.
    const columns = process.stdout.columns || Number.POSITIVE_INFINITY;
    const rows = process.stdout.rows || Number.POSITIVE_INFINITY;
    const fitting = lines
      .slice(0, Math.max(1, rows - 1))
      .map((line) => line.slice(0, Math.max(1, columns - 1)));
    const text = fitting.join('\n');
    if (text === this.#shown) return;
    process.stdout.write(`${this.#wiped}${text}`);
    this.#shown = text;
    this.#height = fitting.length;
  }

  /** Moves to the beginning of what was drawn and clears the rest. */
  get #wiped(): string {
    return `${this.#height > 1 ? `\x1b[${this.#height - 1}A` : ''}\r\x1b[J`;
  }

  #print(line: string): void {
    const now = performance.now();
    const goesOn = line.split(':', 1)[0] === this.#shown.split(':', 1)[0];
    if (line === this.#shown || (goesOn && now - this.#shownMs < LINE_MS)) return;
    process.stdout.write(`${line}\n`);
    this.#shown = line;
    this.#shownMs = now;
  }
}
