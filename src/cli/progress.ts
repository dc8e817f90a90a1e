/** Where there is no terminal a line that goes on changing is printed at most so often. */
const LINE_MS = 1_000;

/** What is going on: redrawn in place on a terminal; plain lines, not too many, elsewhere. */
export class Progress {
  #shown = '';
  #shownMs = Number.NEGATIVE_INFINITY;
  #height = 1;

  /**
   * @param line all there is to say, in one line that begins with what is going on and a colon
   * @param details more lines, for a terminal alone; the first of all lines then
   */
  show(line: string, details: readonly string[] = [line]): void {
    if (process.stdout.isTTY) this.#draw(details);
    else this.#print(line);
  }

  /** Nothing more comes: what was drawn is taken away, or kept. */
  end(what: 'kept' | 'gone' = 'gone'): void {
    if (process.stdout.isTTY && this.#shown !== '')
      process.stdout.write(what === 'kept' ? '\n' : this.#wiped);
    this.#shown = '';
  }

  #draw(lines: readonly string[]): void {
    // A line that is broken by the terminal, or scrolled out of it, could not be found again. Some do not tell their size.
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

  /** To the beginning of what was drawn, and everything behind that away. */
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
