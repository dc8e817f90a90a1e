/** Longer than this a path tells nothing more to who looks at it. */
const MOST_CHARACTERS = 200;

/** Characters that are not seen but do something: control characters, and those that turn the direction of a line. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/**
 * A client's text for people: no character in it can steer a terminal, turn the direction of what stands beside it or
 * make a line of its own, and it has an end.
 */
export function escapeControl(text: string, most = MOST_CHARACTERS): string {
  // Cut first: a text of many megabytes is not looked through.
  const shown = text.length > most ? `${text.slice(0, most)}… (${text.length} characters)` : text;
  return shown.replaceAll(UNSEEN, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}
