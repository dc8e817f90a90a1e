/**
 * Runs `work`, which must not reject, one run at a time. However many calls come during a run, one more run follows:
 * it finds what all of them were made for.
 */
export function oneAtATime(work: () => Promise<void>): () => Promise<void> {
  let asked = false;
  let running = false;
  return async () => {
    asked = true;
    if (running) return;
    running = true;
    while (asked) {
      asked = false;
      await work();
    }
    running = false;
  };
}
