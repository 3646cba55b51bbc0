/** Electron without Electron: records every setting and handler, and lets a test play the system's part. */
import { EventEmitter } from 'node:events';
import { MessageChannel } from 'node:worker_threads';
import { vi, type Mock } from 'vitest';
import type { ElectronApi } from '../../electron/main/ElectronApi.ts';

type Handler = (...given: unknown[]) => unknown;

export class FakeContents extends EventEmitter {
  readonly mainFrame = { url: 'app://workbench/' };
  openHandler: Handler | null = null;
  readonly sent: [string, unknown][] = [];
  readonly ports: unknown[] = [];
  setWindowOpenHandler(handler: Handler) {
    this.openHandler = handler;
  }
  getURL() {
    return this.mainFrame.url;
  }
  send(channel: string, value: unknown) {
    this.sent.push([channel, value]);
  }
  postMessage(_channel: string, _message: unknown, ports: unknown[]) {
    this.ports.push(...ports);
  }
}

export class FakeWindow extends EventEmitter {
  static all: FakeWindow[] = [];
  readonly webContents = new FakeContents();
  visible = false;
  focused = false;
  destroyed = false;
  url = '';
  readonly progress: number[] = [];
  readonly options: Record<string, unknown> & { webPreferences: Record<string, unknown> };
  constructor(options: FakeWindow['options']) {
    super();
    this.options = options;
    FakeWindow.all.push(this);
    FakeWindow.app?.emit('web-contents-created', {}, this.webContents);
  }
  static app: EventEmitter | null = null;
  loadURL(url: string) {
    this.url = url;
    return Promise.resolve();
  }
  show() {
    this.visible = true;
  }
  hide() {
    this.visible = false;
  }
  focus() {
    this.focused = true;
  }
  restore() {}
  maximize() {}
  isMinimized = () => false;
  isMaximized = () => false;
  isVisible = () => this.visible;
  isFocused = () => this.focused;
  getNormalBounds = () => ({ x: 10, y: 20, width: 900, height: 700 });
  setProgressBar(share: number) {
    this.progress.push(share);
  }
  /** What clicking the window's X does. @returns whether it closed */
  close(): boolean {
    let prevented = false;
    this.emit('close', { preventDefault: () => (prevented = true) });
    if (!prevented) {
      this.destroyed = true;
      this.emit('closed');
    }
    return !prevented;
  }
}

export function fakeElectron(userData: string, options: { firstInstance?: boolean } = {}) {
  FakeWindow.all = [];
  const log: string[] = [];
  const note =
    (name: string, answer?: unknown): Handler =>
    () => {
      log.push(name);
      return answer;
    };
  const handlers = new Map<string, Handler>();
  const permission: Record<string, Handler | null> = {};
  const session = Object.assign(new EventEmitter(), {
    setPermissionRequestHandler: (handler: Handler) => (permission['request'] = handler),
    setPermissionCheckHandler: (handler: Handler) => (permission['check'] = handler),
    setDevicePermissionHandler: (handler: Handler) => (permission['device'] = handler),
    setDisplayMediaRequestHandler: (handler: Handler | null) => (permission['display'] = handler),
  });
  const app = Object.assign(new EventEmitter(), {
    isPackaged: true,
    enableSandbox: note('enableSandbox'),
    requestSingleInstanceLock: () => options.firstInstance ?? true,
    whenReady: () => {
      log.push('ready');
      return Promise.resolve();
    },
    getPath: () => userData,
    setAsDefaultProtocolClient: vi.fn() as Mock<(scheme: string) => void>,
    exit: vi.fn() as Mock<(code: number) => void>,
    quit: vi.fn<() => void>(() => {
      let prevented = false;
      app.emit('before-quit', { preventDefault: () => (prevented = true) });
      if (!prevented) for (const window of FakeWindow.all) if (!window.destroyed) window.close();
    }) as Mock<() => void>,
  });
  FakeWindow.app = app;
  const schemes: unknown[] = [];
  const trays: (EventEmitter & { destroyed: boolean; toolTip: string })[] = [];
  const menus: unknown[] = [];
  const notifications: (EventEmitter & { given: { title: string; body: string } })[] = [];
  const dialog = {
    showMessageBox: vi.fn(async () => ({ response: 2 })) as Mock<() => Promise<{ response: number }>>,
    showOpenDialog: vi.fn(async () => ({ canceled: false, filePaths: ['/chosen'] })) as Mock<
      () => Promise<{ canceled: boolean; filePaths: string[] }>
    >,
    showErrorBox: vi.fn() as Mock<(title: string, text: string) => void>,
  };
  const power = {
    start: vi.fn(() => 7) as Mock<(kind: string) => number>,
    stop: vi.fn() as Mock<(id: number) => void>,
  };
  const shell = { openExternal: vi.fn(async () => undefined) as Mock<(url: string) => Promise<void>> };
  const crash = { start: vi.fn() as Mock<(options: object) => void> };
  const pageHandlers = new Map<string, (request: Request) => Promise<Response>>();
  const nativeTheme = { themeSource: 'system', shouldUseDarkColors: false };
  const electron = {
    app,
    BrowserWindow: FakeWindow,
    crashReporter: crash,
    dialog,
    ipcMain: { handle: (name: string, handler: Handler) => handlers.set(name, handler) },
    Menu: {
      buildFromTemplate: (template: unknown) => template,
      setApplicationMenu: (menu: unknown) => menus.push(menu),
    },
    MessageChannelMain: class {
      readonly port1: unknown;
      readonly port2: unknown;
      constructor() {
        const { port1, port2 } = new MessageChannel();
        // Electron's ports deliver an event that carries the message.
        const wrapped = Object.assign(new EventEmitter(), {
          postMessage: (message: unknown) => port1.postMessage(message),
          start: () => port1.start(),
          close: () => port1.close(),
        });
        port1.on('message', (data) => wrapped.emit('message', { data }));
        port1.on('close', () => wrapped.emit('close'));
        this.port1 = wrapped;
        this.port2 = port2;
      }
    },
    nativeImage: { createFromPath: () => ({ resize: () => ({}) }) },
    nativeTheme,
    Notification: class extends EventEmitter {
      static isSupported = () => true;
      readonly given: { title: string; body: string };
      constructor(given: { title: string; body: string }) {
        super();
        this.given = given;
      }
      show() {
        notifications.push(this);
      }
    },
    powerSaveBlocker: power,
    protocol: {
      registerSchemesAsPrivileged: (given: unknown[]) => {
        log.push('schemes');
        schemes.push(...given);
      },
      handle: (scheme: string, handler: (request: Request) => Promise<Response>) =>
        pageHandlers.set(scheme, handler),
    },
    screen: {
      getPrimaryDisplay: () => ({ id: 1, workArea: { x: 0, y: 0, width: 1920, height: 1040 } }),
      getAllDisplays: () => [{ id: 1, workArea: { x: 0, y: 0, width: 1920, height: 1040 } }],
    },
    session: { defaultSession: session },
    shell,
    Tray: class extends EventEmitter {
      destroyed = false;
      toolTip = '';
      constructor() {
        super();
        trays.push(this);
      }
      setToolTip(text: string) {
        this.toolTip = text;
      }
      setContextMenu() {}
      destroy() {
        this.destroyed = true;
      }
    },
    utilityProcess: { fork: vi.fn() },
  };
  return {
    electron: electron as unknown as ElectronApi,
    app,
    dialog,
    shell,
    crash,
    power,
    log,
    handlers,
    permission,
    session,
    schemes,
    trays,
    menus,
    notifications,
    pageHandlers,
    nativeTheme,
    windows: FakeWindow.all,
  };
}
