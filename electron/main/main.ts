// The app's entry: the one file that runs with the real Electron.
import * as electron from 'electron';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { HostLog } from '../../core/host/HostLog.ts';
import { openHome } from '../../core/host/home.ts';
import { checkNativeFiles } from '../../core/process/nativeFiles.ts';
import { startApp } from './startApp.ts';

const appDir = fileURLToPath(new URL('../..', import.meta.url));
const home = openHome();
const log = new HostLog(join(home, 'app.log'));

await startApp({
  electron,
  appDir,
  home,
  log: (line) => log.line(line),
  checkFiles: () => checkNativeFiles(appDir),
  // Loaded once the native files have been checked.
  openServices: async (...given) => (await import('../../core/host/openServices.ts')).openServices(...given),
});
