import { chmodSync, mkdirSync, realpathSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { CaravanError } from '../shared/contract/errors.ts';

/** Where a home lies: CARAVAN_HOME, or the platform's folder for application data. The folder need not exist. */
export function homePath(
  env: Record<string, string | undefined> = process.env,
  platform: NodeJS.Platform = process.platform,
  userHome = homedir(),
): string {
  const named = env['CARAVAN_HOME'];
  if (named !== undefined && named !== '') return resolve(named);
  if (platform === 'win32') return join(env['LOCALAPPDATA'] ?? join(userHome, 'AppData', 'Local'), 'Caravan');
  if (platform === 'darwin') return join(userHome, 'Library', 'Application Support', 'Caravan');
  // The XDG specification: a relative value is to be ignored.
  const dataHome = env['XDG_DATA_HOME'];
  return join(
    dataHome !== undefined && isAbsolute(dataHome) ? dataHome : join(userHome, '.local', 'share'),
    'caravan',
  );
}

/**
 * Makes the home, for its owner's eyes alone, and gives its one true path, by which every host and client knows it.
 * A folder that was there keeps its permissions unless others could write to it.
 * @throws `permission_denied`, `disk_full` or `bad_option`, naming the folder.
 */
export function openHome(path = homePath()): string {
  const mend = 'Set CARAVAN_HOME to a folder of your own.';
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const stat = statSync(path);
    if (process.platform !== 'win32' && (stat.mode & 0o022) !== 0) chmodSync(path, 0o700);
    return realpathSync(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const place = { file: path };
    if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS')
      throw new CaravanError('permission_denied', `cannot make or open the home folder: ${message}`, {
        place,
        mend,
      });
    if (code === 'ENOSPC')
      throw new CaravanError('disk_full', 'no room to make the home folder', { place, mend });
    throw new CaravanError('bad_option', `the home folder cannot be used: ${message}`, { place, mend });
  }
}
