/** The app's life over a fake Electron and a scripted host: what is opened, shown, asked and refused. */
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MessagePort } from 'node:worker_threads';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { messagePortCarrier } from '../../core/host/carriers/messagePort.ts';
import { createClient } from '../../core/shared/contract/client.ts';
import type { EmitEvent } from '../../core/shared/contract/service.ts';
import type { Job } from '../../core/shared/job/job.ts';
import { fakeElectron, type FakeWindow } from '../../tests/support/fakeElectron.ts';
import { fakeServices } from '../../tests/support/fakeServices.ts';
import { startApp } from './startApp.ts';

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

const training: Job = {
  id: 'j1',
  kind: 'train',
  title: 'Training demo',
  state: 'running',
  progress: { done: 5, total: 20, unit: 'steps', rate: 1, etaMs: 1 },
  subjectId: 'r1',
  place: null,
  held: false,
  canPause: true,
  canCancel: true,
  error: null,
  createdAt: 0,
  startedAt: 0,
  endedAt: null,
};

async function launch(options: { jobs?: Job[]; firstInstance?: boolean; damaged?: boolean } = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'app-'));
  const fake = fakeElectron(join(dir, 'userData'), options);
  let emit: EmitEvent = () => undefined;
  const closed = vi.fn(async () => undefined);
  // Tests have signal handlers and exits of their own.
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP', 'uncaughtException'] as const) {
    const before = process.listeners(name as 'SIGINT');
    cleanUps.push(() => {
      for (const listener of process.listeners(name as 'SIGINT'))
        if (!before.includes(listener)) process.off(name, listener);
    });
  }
  await startApp({
    electron: fake.electron,
    appDir: join(dir, 'app'),
    home: join(dir, 'home'),
    log: () => undefined,
    checkFiles: () =>
      options.damaged ? Promise.reject(new Error('a native file was changed')) : Promise.resolve(),
    openServices: async (_home, _unclean, tell) => {
      emit = tell;
      return fakeServices({ listJobs: () => options.jobs ?? [] }, { close: closed });
    },
  });
  const window = () => fake.windows.at(-1)!;
  cleanUps.push(async () => {
    if (fake.windows.length === 0) return;
    fake.dialog.showMessageBox.mockResolvedValue({ response: 1 });
    fake.app.quit();
    await vi.waitFor(() => expect(closed).toHaveBeenCalled());
  });
  const invoke = (name: string, argument?: unknown, frame: unknown = window().webContents.mainFrame) =>
    fake.handlers.get(name)!({ senderFrame: frame }, argument);
  return { ...fake, dir, window, invoke, closed, emit: (job: Job) => emit('jobChanged', job) };
}

describe('starting', () => {
  test('sandboxes everything and names its scheme before it is ready; reports crashes to nobody', async () => {
    const { log, crash, schemes, window, pageHandlers } = await launch();
    expect(log.indexOf('enableSandbox')).toBeLessThan(log.indexOf('ready'));
    expect(log.indexOf('schemes')).toBeLessThan(log.indexOf('ready'));
    expect(schemes).toMatchObject([{ scheme: 'app', privileges: { standard: true, secure: true } }]);
    expect(crash.start).toHaveBeenCalledExactlyOnceWith({ uploadToServer: false });
    expect(window().url).toBe('app://workbench/');
    expect(window().options.webPreferences).toMatchObject({ sandbox: true, contextIsolation: true });
    expect([...pageHandlers.keys()]).toEqual(['app']);
  });

  test('every contents is guarded as it comes to be', async () => {
    const { window } = await launch();
    expect(window().webContents.openHandler!({})).toEqual({ action: 'deny' });
  });

  test('a second start ends, and the first opens what that was given', async () => {
    const second = await launch({ firstInstance: false });
    expect(second.app.quit).toHaveBeenCalled();
    expect(second.windows).toEqual([]);

    const first = await launch();
    await first.invoke('pageReady');
    const file = join(first.dir, 'my.recipe.yaml');
    writeFileSync(file, 'name: x\n');
    first.app.emit('second-instance', {}, ['caravan', 'caravan://run/r1', 'my.recipe.yaml'], first.dir);
    expect(first.window().webContents.sent).toEqual([
      ['open', { kind: 'route', path: '/runs/r1' }],
      ['open', { kind: 'recipe', name: 'my.recipe.yaml', text: 'name: x\n' }],
    ]);
    expect(first.window().focused).toBe(true);
  });

  test('what is asked before the page listens waits for it', async () => {
    const { app, window, invoke } = await launch();
    app.emit('open-url', { preventDefault() {} }, 'caravan://jobs');
    await vi.waitFor(async () => {
      await invoke('pageReady');
      expect(window().webContents.sent).toEqual([['open', { kind: 'route', path: '/jobs' }]]);
    });
  });

  test('a native file that is not the shipped one is not loaded', async () => {
    const { app, dialog, windows } = await launch({ damaged: true });
    expect(dialog.showErrorBox).toHaveBeenCalledWith('Caravan cannot start', 'a native file was changed');
    expect(app.exit).toHaveBeenCalledWith(1);
    expect(windows).toEqual([]);
  });
});

describe('what the page may ask', () => {
  test('a connection to the host that this process is', async () => {
    const { invoke, window } = await launch();
    await invoke('connect');
    const client = createClient(messagePortCarrier(window().webContents.ports[0] as MessagePort));
    const { pid } = await client.call('hello', {});
    expect(pid).toBe(process.pid);
    client.close();
  });

  test.each(['connect', 'choosePaths', 'openLink', 'setTheme', 'pageReady'])(
    '%s is refused to a frame that is not the page, and to one that went elsewhere',
    async (name) => {
      const { invoke, window } = await launch();
      expect(() => invoke(name, undefined, { url: 'app://workbench/' })).toThrow(/something else/);
      expect(() => invoke(name, undefined, null)).toThrow(/something else/);
      window().webContents.mainFrame.url = 'https://example.com/';
      expect(() => invoke(name)).toThrow(/something else/);
    },
  );

  test('arguments are parsed', async () => {
    const { invoke, nativeTheme } = await launch();
    expect(() => invoke('setTheme', 'pink')).toThrow();
    expect(() => invoke('choosePaths', { properties: ['openFile'] })).toThrow();
    invoke('setTheme', 'dark');
    expect(nativeTheme.themeSource).toBe('dark');
    expect(await invoke('choosePaths', 'model')).toEqual(['/chosen']);
  });

  test('a link is opened in the browser once its owner has seen the host', async () => {
    const { invoke, dialog, shell } = await launch();
    await expect(invoke('openLink', 'file:///etc/passwd')).rejects.toThrow(/https/);
    dialog.showMessageBox.mockResolvedValueOnce({ response: 1 });
    await invoke('openLink', 'https://example.com/a');
    expect(shell.openExternal).not.toHaveBeenCalled();
    dialog.showMessageBox.mockResolvedValueOnce({ response: 0 });
    await invoke('openLink', 'https://example.com/a');
    expect(dialog.showMessageBox.mock.lastCall as unknown[]).toMatchObject([
      expect.anything(),
      { message: 'Open example.com in your browser?' },
    ]);
    expect(shell.openExternal).toHaveBeenCalledExactlyOnceWith('https://example.com/a');
  });
});

describe('while a run lives', () => {
  test('tray, taskbar and wakefulness follow it, and its end is told to who looks elsewhere', async () => {
    const { trays, window, power, notifications, emit } = await launch({ jobs: [training] });
    expect(trays).toHaveLength(1);
    expect(trays[0]!.toolTip).toBe('Caravan: Training demo, 25 %');
    expect(window().progress.at(-1)).toBe(0.25);
    expect(power.start).toHaveBeenCalledExactlyOnceWith('prevent-app-suspension');
    window().show();
    window().focused = false;
    emit({ ...training, state: 'completed', endedAt: 1 });
    await vi.waitFor(() => expect(notifications).toHaveLength(1));
    expect(notifications[0]!.given.title).toBe('Training demo: done');
    expect(power.stop).toHaveBeenCalledWith(7);
    expect(window().progress.at(-1)).toBe(-1);
    expect(trays[0]!.destroyed).toBe(true);
  });

  test('a paused run lets the machine sleep', async () => {
    const { power } = await launch({ jobs: [{ ...training, state: 'paused' }] });
    expect(power.start).not.toHaveBeenCalled();
  });

  test.each([
    ['cancel', 2],
    ['keep in the tray', 0],
  ])('closing the window asks: %s', async (name, response) => {
    const { window, dialog, closed } = await launch({ jobs: [training] });
    window().show();
    dialog.showMessageBox.mockResolvedValueOnce({ response });
    expect(window().close()).toBe(false);
    await vi.waitFor(() => expect(dialog.showMessageBox).toHaveBeenCalled());
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(closed).not.toHaveBeenCalled();
    expect(window().visible).toBe(name === 'cancel');
    expect((dialog.showMessageBox.mock.lastCall as unknown as [FakeWindow, object])[1]).toMatchObject({
      buttons: ['Keep running in the tray', 'Stop with a checkpoint and quit', 'Cancel'],
      defaultId: 0,
      cancelId: 2,
    });
  });

  test('stopping closes the host, which saves the run, before the app ends', async () => {
    const { window, dialog, closed, app } = await launch({ jobs: [training] });
    dialog.showMessageBox.mockResolvedValueOnce({ response: 1 });
    window().close();
    await vi.waitFor(() => expect(window().destroyed).toBe(true));
    expect(closed).toHaveBeenCalledOnce();
    expect(closed.mock.invocationCallOrder[0]).toBeLessThan(app.quit.mock.invocationCallOrder[0]!);
  });
});

test('with nothing at work it closes without a question, and remembers where it was', async () => {
  const { window, dialog, dir } = await launch();
  window().close();
  await vi.waitFor(() => expect(window().destroyed).toBe(true));
  expect(dialog.showMessageBox).not.toHaveBeenCalled();
  expect(JSON.parse(readFileSync(join(dir, 'userData/window.json'), 'utf8'))).toEqual({
    bounds: { x: 10, y: 20, width: 900, height: 700 },
    maximized: false,
  });
});
