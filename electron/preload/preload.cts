/**
 * Gives the page its few named functions. It runs in the sandbox, where a preload script is one CommonJS file and may
 * require Electron alone; no object of Electron, and no event of its, gets past it.
 */
// eslint-disable-next-line @typescript-eslint/no-require-imports, @typescript-eslint/consistent-type-imports
const { contextBridge, ipcRenderer, webUtils } = require('electron') as typeof import('electron');
import type { Carrier } from '../../core/shared/contract/wire.ts' with { 'resolution-mode': 'import' };
import type { OpenTarget, Workbench } from '../../core/shared/contract/workbench.ts' with {
  'resolution-mode': 'import',
};

/** Ports that main sent, in the order they were asked for. */
const waiting: ((port: MessagePort) => void)[] = [];
ipcRenderer.on('port', (event) => waiting.shift()?.(event.ports[0]!));

const opened: OpenTarget[] = [];
let onOpened: ((target: OpenTarget) => void) | null = null;
ipcRenderer.on('open', (_event, target: OpenTarget) => {
  if (onOpened) onOpened(target);
  else opened.push(target);
});

function carrierOf(port: MessagePort): Carrier {
  const closeListeners: ((reason: string) => void)[] = [];
  let closed = false;
  const tellClosed = (reason: string) => {
    if (closed) return;
    closed = true;
    for (const listener of closeListeners) listener(reason);
  };
  port.addEventListener('close', () => tellClosed('the host closed the connection'));
  return {
    send: (message) => port.postMessage(message),
    onMessage(listener) {
      port.addEventListener('message', ({ data }) => listener(data));
      port.start();
    },
    onClose: (listener) => void closeListeners.push(listener),
    close(reason = 'closed here') {
      port.close();
      tellClosed(reason);
    },
  };
}

const workbench: Workbench = {
  kind: 'app',
  async connect() {
    const port = new Promise<MessagePort>((resolve) => waiting.push(resolve));
    const mine = waiting.at(-1)!;
    try {
      await ipcRenderer.invoke('connect');
    } catch (error) {
      const place = waiting.indexOf(mine);
      if (place >= 0) waiting.splice(place, 1);
      throw error;
    }
    return carrierOf(await port);
  },
  desktop: {
    pathOf: (file) => webUtils.getPathForFile(file as File),
    choosePaths: (what) => ipcRenderer.invoke('choosePaths', what) as Promise<string[]>,
    openLink: (url) => ipcRenderer.invoke('openLink', url) as Promise<void>,
    setTheme: (theme) => ipcRenderer.invoke('setTheme', theme) as Promise<void>,
    onOpen(listener) {
      onOpened = listener;
      for (const target of opened.splice(0)) listener(target);
      void ipcRenderer.invoke('pageReady');
    },
  },
};

contextBridge.exposeInMainWorld('workbench', workbench);
