/** Names of files come from a stranger: what would leave the folder, or mean something else on some system, is refused. Pure. */
import { CaravanError } from '../shared/contract/errors.ts';

const reserved = /^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$/i;

/** @returns why a path cannot be a file below a folder; null where it can */
export function pathProblem(path: string): string | null {
  if (path === '' || path.length > 400) return 'has no usable length';

  if (/[\\:*?"<>|\u0000-\u001f\u007f]/.test(path)) return 'holds a character that no file name may have';
  for (const part of path.split('/')) {
    if (part === '' || part === '.' || part === '..') return 'leaves the folder';
    if (/[. ]$/.test(part) || reserved.test(part)) return 'is no file name on some systems';
    if (part.endsWith(partialEnding) || part === recordName) return 'is a name that Caravan keeps for itself';
  }
  return null;
}

/** Of a file that is not yet whole. */
export const partialEnding = '.caravan-partial';
/** What a folder of downloads says of itself. */
export const recordName = 'caravan-hub.json';

/** @throws `bad_file` for a name that escapes, or two that would be one file where letters' case does not count */
export function checkPaths(repository: string, files: readonly { path: string }[]): void {
  const seen = new Map<string, string>();
  for (const { path } of files) {
    const problem = pathProblem(path);
    if (problem !== null)
      throw new CaravanError(
        'bad_file',
        `${repository} lists the file ${JSON.stringify(path.slice(0, 200))}, which ${problem}`,
        {
          mend: 'Nothing was downloaded. Choose other files, or another repository.',
        },
      );
    const folded = path.toLowerCase();
    const other = seen.get(folded);
    if (other !== undefined)
      throw new CaravanError('bad_file', `${repository} lists ${other} and ${path}, which are one file`, {
        mend: 'Nothing was downloaded. Name one of them behind a colon.',
      });
    seen.set(folded, path);
  }
}
