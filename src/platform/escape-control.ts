const MOST_CHARACTERS = 200;

/** Control characters, and invisible ones that change the direction of text or break lines. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** Makes a client's text safe to show: it cannot control a terminal, reorder what is beside it, break lines or flood. */
export function escapeControl(text: string, most = MOST_CHARACTERS): string {
  // Cut first: searching many megabytes would block the event loop.
  const shown = text.length > most ? `${text.slice(0, most)}… (${text.length} characters)` : text;
  return shown.replaceAll(UNSEEN, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}
