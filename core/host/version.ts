import { readFileSync } from 'node:fs';

/** Caravan's version, as package.json says it. */
export const version: string = (
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
).version;
