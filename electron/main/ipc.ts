/** What the page may ask of the app: each by name, each from the page alone, each with its arguments parsed. */
import type { BrowserWindow, IpcMainInvokeEvent, OpenDialogOptions } from 'electron';
import * as z from 'zod';
import { messagePortCarrier, type PortLike } from '../../core/host/carriers/messagePort.ts';
import type { BufferedCarrier } from '../../core/host/carriers/BufferedCarrier.ts';
import { desktopThemes, pathKinds, type PathKind } from '../../core/shared/contract/workbench.ts';
import type { ElectronApi } from './ElectronApi.ts';
import { isPageUrl, webAddress } from './security.ts';

export interface IpcDeps {
  electron: Pick<ElectronApi, 'dialog' | 'ipcMain' | 'MessageChannelMain' | 'nativeTheme' | 'shell'>;
  window: () => BrowserWindow | null;
  attach: (carrier: BufferedCarrier) => Promise<void>;
  /** The page has its listener in place. */
  onPageReady: () => void;
}

const dialogs: Record<PathKind, OpenDialogOptions> = {
  datasets: {
    title: 'Choose files to import',
    properties: ['openFile', 'multiSelections'],
    filters: [
      {
        name: 'Datasets',
        extensions: ['jsonl', 'ndjson', 'json', 'csv', 'tsv', 'parquet', 'gz', 'zst', 'txt'],
      },
      { name: 'All files', extensions: ['*'] },
    ],
  },
  model: { title: 'Choose a model folder', properties: ['openDirectory'] },
  folder: { title: 'Choose a folder', properties: ['openDirectory', 'createDirectory'] },
};

export function handlePage({ electron, window, attach, onPageReady }: IpcDeps): void {
  const { dialog, ipcMain, MessageChannelMain, nativeTheme, shell } = electron;

  function handle<T>(name: string, schema: z.ZodType<T>, answer: (argument: T) => unknown): void {
    ipcMain.handle(name, (event: IpcMainInvokeEvent, argument: unknown) => {
      const own = window();
      const frame = event.senderFrame;
      if (own === null || frame === null || frame !== own.webContents.mainFrame || !isPageUrl(frame.url))
        throw new Error(`${name}: asked by something else than the page`);
      return answer(schema.parse(argument));
    });
  }

  handle('connect', z.undefined(), async () => {
    const { port1, port2 } = new MessageChannelMain();
    await attach(
      messagePortCarrier(port1 as unknown as PortLike, (event) => (event as { data: unknown }).data),
    );
    window()?.webContents.postMessage('port', null, [port2]);
  });
  handle('choosePaths', z.enum(pathKinds), async (what) => {
    const own = window();
    if (own === null) return [];
    const { canceled, filePaths } = await dialog.showOpenDialog(own, dialogs[what]);
    return canceled ? [] : filePaths;
  });
  handle('openLink', z.string(), async (text) => {
    const url = webAddress(text);
    const own = window();
    if (url === null) throw new Error('only https addresses can be opened');
    if (own === null) return;
    const { response } = await dialog.showMessageBox(own, {
      type: 'question',
      message: `Open ${url.host} in your browser?`,
      detail: url.href,
      buttons: ['Open', 'Cancel'],
      defaultId: 1,
      cancelId: 1,
      noLink: true,
    });
    if (response === 0) await shell.openExternal(url.href);
  });
  handle('setTheme', z.enum(desktopThemes), (theme) => {
    nativeTheme.themeSource = theme;
  });
  handle('pageReady', z.undefined(), () => onPageReady());
}
