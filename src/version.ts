import { readFileSync } from 'node:fs';

/** Where the code lies: `src`, or `dist`, where several modules are one file. */
export const CODE = new URL('./', import.meta.url);

/** The version in package.json, which lies beside both. */
export const version: string = JSON.parse(readFileSync(new URL('../package.json', CODE), 'utf8')).version;
