/** What the app is asked to open from outside: links, files, words of a second start. All of it is a stranger's. */
import { readFileSync, statSync } from 'node:fs';
import { basename, isAbsolute, resolve } from 'node:path';
import type { OpenTarget } from '../../core/shared/contract/workbench.ts';

export const linkScheme = 'caravan';

const screens: Readonly<Record<string, string>> = {
  home: '/',
  datasets: '/datasets',
  mix: '/datasets/mix',
  train: '/train',
  experiments: '/experiments',
  jobs: '/jobs',
  chat: '/chat',
  routing: '/routing',
};
const subjects: Readonly<Record<string, string>> = {
  run: '/runs',
  chat: '/chat',
  source: '/datasets/sources',
  mix: '/datasets/mixes',
};
const longestFileBytes = 1024 * 1024;

/**
 * caravan://SCREEN or caravan://run/ID, chat/ID, source/ID, mix/ID. A link shows something and starts nothing.
 * @returns null for anything else
 */
export function readLink(text: string): OpenTarget | null {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  if (url.protocol !== `${linkScheme}:`) return null;
  const id = url.pathname.replace(/^\/|\/$/g, '');
  const folders = id === '' ? screens : subjects;
  const found = Object.hasOwn(folders, url.host) ? folders[url.host]! : null;
  if (found === null) return null;
  if (id === '') return { kind: 'route', path: found };
  return /^[\w-]{1,64}$/.test(id) ? { kind: 'route', path: `${found}/${id}` } : null;
}

/** A recipe.yaml or run.yaml (also NAME.recipe.yaml, NAME.run.yaml). @returns null for any other file, or one too large */
export function readOpenedFile(path: string): OpenTarget | null {
  const name = basename(path);
  const kind = /(?:^|[.-])(recipe|run)\.ya?ml$/i.exec(name)?.[1]?.toLowerCase();
  if (kind !== 'recipe' && kind !== 'run') return null;
  try {
    const stat = statSync(path);
    if (!stat.isFile() || stat.size > longestFileBytes) return null;
    return { kind, name, text: readFileSync(path, 'utf8') };
  } catch {
    return null;
  }
}

/** @param argv all words of a start, the program's own first */
export function targetsOf(argv: readonly string[], cwd: string): OpenTarget[] {
  return argv.slice(1).flatMap((word) => {
    if (word.startsWith('-')) return [];
    const target = word.startsWith(`${linkScheme}:`)
      ? readLink(word)
      : readOpenedFile(isAbsolute(word) ? word : resolve(cwd, word));
    return target === null ? [] : [target];
  });
}
