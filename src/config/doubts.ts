import { SETTINGS } from './settings.ts';

const NAMES = [...SETTINGS.map(({ name }) => name), 'SETTINGS_FILE'];

/** An assignment, whose quoted value may have several lines, or else one line of anything. */
const LINE =
  /^[ \t]*(?:export[ \t]+)?([\w.-]+)[ \t]*(?:=|:[ \t])[ \t]*(?:(?:"(?:\\"|[^"])*"|'(?:\\'|[^'])*'|`(?:\\`|[^`])*`)[ \t]*(?:#.*)?|(?!["'`]).*)$|^.*$/gm;
const BLANK_OR_COMMENT = /^\s*([#;].*)?$/;

/** Warns of names in the environment that are nearly a setting's. */
export function doubtsOfNames(names: readonly string[]): string[] {
  return names.flatMap((name) => {
    const meant = NAMES.includes(name) ? undefined : meantBy(name);
    return meant === undefined ? [] : [misspelled('environment', name, meant)];
  });
}

/** Warns of lines that are no assignment, and of names that are no setting. Never shows a value. */
export function doubtsOfFile(file: string, text: string): string[] {
  const doubts: string[] = [];
  const others = new Set<string>();
  for (const { 0: line, 1: name, index } of text.matchAll(LINE)) {
    const at = `${file}:${text.slice(0, index).split('\n').length}`;
    if (name === undefined) {
      if (!BLANK_OR_COMMENT.test(line)) doubts.push(`${at}: this line is not NAME=value`);
    } else if (!NAMES.includes(name)) {
      const meant = meantBy(name);
      if (meant === undefined) others.add(name);
      else doubts.push(misspelled(at, name, meant));
    }
  }
  if (others.size > 0)
    doubts.push(`${file}: not settings, left to the application: ${[...others].join(', ')}`);
  return doubts;
}

function misspelled(where: string, name: string, meant: string): string {
  return `${where}: ${name} is not a setting; did you mean ${meant}?`;
}

/** The setting that a misspelled name comes closest to. Short names must be closer: APP_PORT is not OPS_PORT. */
function meantBy(name: string): string | undefined {
  const upper = name.toUpperCase();
  const mostFor = ({ length }: string): number => (length < 4 ? 0 : length < 10 ? 1 : 2);
  return [0, 1, 2].flatMap(
    (most) => NAMES.find((known) => most <= mostFor(known) && isNear(upper, known, most)) ?? [],
  )[0];
}

/** Whether at most so many letters were added, left out, changed or swapped with the next one. */
function isNear(one: string, other: string, most: number): boolean {
  if (one === other || most === 0 || Math.abs(one.length - other.length) > most) return one === other;
  let at = 0;
  while (one[at] === other[at]) at += 1;
  const [a, b] = [one.slice(at), other.slice(at)];
  const without = (fromA: number, fromB: number): boolean => isNear(a.slice(fromA), b.slice(fromB), most - 1);
  const swapped = a[0] === b[1] && a[1] === b[0];
  return without(1, 0) || without(0, 1) || without(1, 1) || (swapped && without(2, 2));
}
