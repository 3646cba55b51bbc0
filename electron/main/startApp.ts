/** The life of the app: one instance, one window, one host; what is asked from outside, and how it ends. */
import { join } from 'node:path';
import type { BrowserWindow, Tray } from 'electron';
import { embedHost, type EmbedOptions, type HostLink } from '../../core/host/embedHost.ts';
import type { OpenTarget } from '../../core/shared/contract/workbench.ts';
import type { ElectronApi } from './ElectronApi.ts';
import { handlePage } from './ipc.ts';
import { menuTemplate } from './menu.ts';
import { linkScheme, readLink, readOpenedFile, targetsOf } from './openTargets.ts';
import { pageResponder } from './pageProtocol.ts';
import { quitChoice, quitQuestion } from './quit.ts';
import {
  guardContents,
  guardSession,
  pageScheme,
  pageSchemePrivileges,
  pageUrl,
  windowPreferences,
} from './security.ts';
import { spawnUtility } from './spawnUtility.ts';
import { summarise, watchWork, type Ending, type WorkSummary } from './watchWork.ts';
import { placeWindow, readWindowState, smallestWindow, writeWindowState } from './windowState.ts';

export interface AppOptions {
  electron: ElectronApi;
  /** Folder that holds core/, electron/ and out/. */
  appDir: string;
  home?: string;
  openServices: EmbedOptions['openServices'];
  /** Rejects where a native file is not the one that was shipped. */
  checkFiles: () => Promise<void>;
  log: (line: string) => void;
}

const guideUrl = 'https://github.com/caravan-workbench/caravan/blob/main/docs/user-guide.md';
/** A taskbar redraws its bar at each call. */
const barEveryMs = 1000;

export async function startApp(options: AppOptions): Promise<void> {
  const { electron, appDir, log } = options;
  const { app, BrowserWindow, dialog, Menu, nativeImage, protocol, session } = electron;

  // All of this must come before the app is ready.
  app.enableSandbox();
  protocol.registerSchemesAsPrivileged([{ scheme: pageScheme, privileges: pageSchemePrivileges }]);
  app.on('web-contents-created', (_event, contents) => guardContents(contents));
  // A crash of Electron itself leaves a dump beside the app's data and goes nowhere.
  electron.crashReporter.start({ uploadToServer: false });
  if (!app.requestSingleInstanceLock()) {
    app.quit();
    return;
  }
  const iconFile = join(appDir, 'electron/icon.png');
  const stateFile = join(app.getPath('userData'), 'window.json');

  let window: BrowserWindow | null = null;
  let tray: Tray | null = null;
  let link: Promise<HostLink> | null = null;
  let current: HostLink | null = null;
  let summary: WorkSummary = summarise([]);
  let pageReady = false;
  let mayQuit = false;
  let asking = false;
  let awake: number | null = null;
  let barAt = 0;
  const pending: OpenTarget[] = [];

  function open(target: OpenTarget): void {
    showWindow();
    if (pageReady && window !== null) window.webContents.send('open', target);
    else pending.push(target);
  }

  // Files and links of macOS come as events, perhaps before the app is ready.
  app.on('open-file', (event, path) => {
    event.preventDefault();
    const target = readOpenedFile(path);
    if (target !== null) whenReady(() => open(target));
  });
  app.on('open-url', (event, url) => {
    event.preventDefault();
    const target = readLink(url);
    if (target !== null) whenReady(() => open(target));
  });
  app.on('second-instance', (_event, argv, cwd) => {
    showWindow();
    for (const target of targetsOf(argv, cwd)) open(target);
  });
  app.on('activate', () => showWindow());
  // The tray keeps it alive where that was chosen; else the window's own closing has asked already.
  app.on('window-all-closed', () => undefined);
  app.on('before-quit', (event) => {
    if (mayQuit) return;
    event.preventDefault();
    void quit();
  });
  const whenReady = (work: () => void) => void app.whenReady().then(work);

  await app.whenReady();
  app.setAsDefaultProtocolClient(linkScheme);
  try {
    await options.checkFiles();
  } catch (error) {
    dialog.showErrorBox('Caravan cannot start', (error as Error).message);
    mayQuit = true;
    app.exit(1);
    return;
  }
  guardSession(session.defaultSession);
  protocol.handle(pageScheme, pageResponder(join(appDir, 'out/renderer')));
  handlePage({
    electron,
    window: () => window,
    attach: async (carrier) => (await connected()).attach(carrier),
    onPageReady() {
      pageReady = true;
      for (const target of pending.splice(0)) window?.webContents.send('open', target);
    },
  });
  Menu.setApplicationMenu(
    Menu.buildFromTemplate(
      menuTemplate(
        {
          open,
          openFile: () => void openFile(),
          openHelp: () => void electron.shell.openExternal(guideUrl),
          quit: () => void quit(),
        },
        process.platform,
        app.isPackaged,
      ),
    ),
  );
  showWindow();
  for (const target of targetsOf(process.argv, process.cwd())) open(target);
  await connected().catch((error: unknown) => log(`the host did not start: ${(error as Error).message}`));

  /** The home's host; looked for again after it was lost. */
  function connected(): Promise<HostLink> {
    link ??= connect().catch((error: unknown) => {
      link = null;
      throw error;
    });
    return link;
  }

  async function connect(): Promise<HostLink> {
    const found = await embedHost({
      ...(options.home !== undefined && { home: options.home }),
      spawn: spawnUtility(electron),
      openServices: options.openServices,
      onRemark: log,
    });
    current = found;
    found.client.onClose(() => {
      if (current !== found) return;
      current = null;
      link = null;
    });
    await watchWork(found.client, { onSummary: showSummary, onEnding: notify });
    return found;
  }

  function showWindow(): void {
    if (window !== null) {
      if (window.isMinimized()) window.restore();
      window.show();
      window.focus();
      return;
    }
    const kept = readWindowState(stateFile);
    const { screen, nativeTheme } = electron;
    const primary = screen.getPrimaryDisplay();
    const others = screen.getAllDisplays().filter(({ id }) => id !== primary.id);
    const made = new BrowserWindow({
      ...placeWindow(
        kept?.bounds ?? null,
        [primary, ...others].map(({ workArea }) => workArea),
      ),
      minWidth: smallestWindow.width,
      minHeight: smallestWindow.height,
      show: false,
      title: 'Caravan',
      icon: nativeImage.createFromPath(iconFile),
      // Until the page has painted: no white flash on a dark desktop.
      backgroundColor: nativeTheme.shouldUseDarkColors ? '#16181d' : '#ffffff',
      webPreferences: windowPreferences(join(appDir, 'electron/preload/preload.cjs')),
    });
    window = made;
    pageReady = false;
    if (kept?.maximized) made.maximize();
    made.once('ready-to-show', () => made.show());
    made.webContents.on('did-start-loading', () => (pageReady = false));
    made.webContents.on('render-process-gone', (_event, { reason }) => {
      log(`the page's process is gone: ${reason}`);
      if (reason !== 'clean-exit') void made.loadURL(pageUrl);
    });
    made.on('close', (event) => {
      writeWindowState(stateFile, { bounds: made.getNormalBounds(), maximized: made.isMaximized() });
      if (mayQuit) return;
      event.preventDefault();
      void quit();
    });
    made.on('closed', () => (window = null));
    showSummary(summary);
    void made.loadURL(pageUrl);
  }

  async function quit(): Promise<void> {
    if (asking || mayQuit) return;
    asking = true;
    try {
      const question = quitQuestion(summary, current?.isOwn ?? false);
      if (question !== null) {
        showWindow();
        const choice = quitChoice((await dialog.showMessageBox(window!, question)).response);
        if (choice === 'cancel') return;
        if (choice === 'tray') {
          window!.hide();
          return;
        }
      }
      mayQuit = true;
      window?.hide();
      await current?.close();
      app.quit();
    } finally {
      asking = false;
    }
  }

  async function openFile(): Promise<void> {
    showWindow();
    const { filePaths } = await dialog.showOpenDialog(window!, {
      properties: ['openFile'],
      filters: [{ name: 'Recipes and runs', extensions: ['yaml', 'yml'] }],
    });
    for (const path of filePaths) {
      const target = readOpenedFile(path);
      if (target !== null) open(target);
      else
        await dialog.showMessageBox(window!, {
          type: 'info',
          message: 'This is neither a recipe nor a run',
          detail: `${path}: a file that Caravan opens is called recipe.yaml or run.yaml, and is at most 1 MB.`,
        });
    }
  }

  function showSummary(next: WorkSummary): void {
    const wasBusy = summary.jobs.length > 0;
    summary = next;
    const isBusy = next.jobs.length > 0;
    const now = Date.now();
    if (window !== null && (now - barAt >= barEveryMs || wasBusy !== isBusy)) {
      barAt = now;
      // 2: at work, share unknown.
      window.setProgressBar(next.share ?? 2);
    }
    keepAwake(next.isTraining);
    if (isBusy) showTray(next.line);
    else if (tray !== null && window?.isVisible() !== false) {
      tray.destroy();
      tray = null;
    }
    tray?.setToolTip(`Caravan: ${next.line}`);
  }

  /** There while work runs, and for as long as the window is hidden: what is out of sight must be found again. */
  function showTray(line: string): void {
    if (tray !== null) return;
    tray = new electron.Tray(nativeImage.createFromPath(iconFile).resize({ width: 22, height: 22 }));
    tray.setToolTip(`Caravan: ${line}`);
    tray.setContextMenu(
      Menu.buildFromTemplate([
        { label: 'Open Caravan', click: () => showWindow() },
        { label: 'Jobs', click: () => open({ kind: 'route', path: '/jobs' }) },
        { type: 'separator' },
        { label: 'Quit', click: () => void quit() },
      ]),
    );
    tray.on('click', () => showWindow());
  }

  function keepAwake(wanted: boolean): void {
    const { powerSaveBlocker } = electron;
    if (wanted && awake === null) awake = powerSaveBlocker.start('prevent-app-suspension');
    if (!wanted && awake !== null) {
      powerSaveBlocker.stop(awake);
      awake = null;
    }
  }

  function notify({ title, body, path }: Ending): void {
    if (window?.isFocused() || !electron.Notification.isSupported()) return;
    const notification = new electron.Notification({ title, body });
    notification.on('click', () => open({ kind: 'route', path }));
    notification.show();
  }
}
