/** The desktop app as it is packed, and how it starts; with a real Electron where one is. */
import { spawn } from 'node:child_process';
import { appendFileSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { _electron } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkPackage } from '../build/check_package.mjs';
import { builderConfig, fuses } from '../build/electron_builder.mjs';
import { packageApp } from '../build/package.mjs';
import { appFolder, stageApp, stripSource } from '../build/stage_app.mjs';
import { electronBinary, obtainElectron } from '../build/start.mjs';
import { needs } from './support/skip.ts';

const base = mkdtempSync(join(tmpdir(), 'desktop-'));
afterAll(() => rmSync(base, { recursive: true, force: true }));

describe.runIf(process.platform === 'linux' && needs('addon', 'the packed desktop app'))(
  'packed around a stand-in for Electron',
  () => {
    let unpacked: string;
    let copies = 0;
    beforeAll(async () => {
      unpacked = await packageApp({ standIn: true });
    }, 180_000);

    /** With the file in the way it is broken. */
    function broken(mend: (resources: string) => void): string[] {
      const copy = join(base, `broken-${copies++}`);
      cpSync(unpacked, copy, { recursive: true });
      mend(join(copy, 'resources'));
      const problems = checkPackage(copy);
      rmSync(copy, { recursive: true });
      return problems;
    }

    test('it holds what run needs and nothing else', () => expect(checkPackage(unpacked)).toEqual([]));

    test('the check names what is wrong', () => {
      const addon = 'app.asar.unpacked/out/native/caravan.node';
      expect(broken((at) => appendFileSync(join(at, addon), 'x'))).toEqual([
        'out/native/caravan.node is another than native-files.json says',
      ]);
      expect(broken((at) => rmSync(join(at, addon)))[0]).toMatch(/caravan\.node is packed, where the linker/);
      expect(broken((at) => writeFileSync(join(at, 'app.asar.unpacked/libcuda.so.1'), ''))[0]).toMatch(
        /^libcuda\.so\.1 lies beside the archive/,
      );
      expect(broken((at) => mkdirSync(join(at, 'app')))).toEqual([
        'resources/app would be loaded in place of the archive',
      ]);
      expect(broken((at) => rmSync(join(at, 'app.asar')))[0]).toMatch(/app\.asar is not there$/);
    });

    test('what is in the archive runs away from the checkout', async () => {
      const app = join(base, 'extracted');
      const { extractAll } = createRequire(import.meta.url)('@electron/asar') as {
        extractAll(archive: string, to: string): void;
      };
      extractAll(join(unpacked, 'resources/app.asar'), app);
      const script = `
        const { checkNativeFiles } = await import(${JSON.stringify(join(app, 'core/process/nativeFiles.js'))});
        await checkNativeFiles(${JSON.stringify(app)});
        const { main } = await import(${JSON.stringify(join(app, 'core/cli/main.js'))});
        process.exitCode = await main(['doctor']);`;
      const { code, output } = await ended(process.execPath, ['--input-type=module', '-e', script], {
        PATH: '/usr/bin:/bin',
        CARAVAN_HOME: join(base, 'home'),
        CARAVAN_HOST_IDLE_S: '1',
      });
      expect(output).toMatch(/✓ engine/);
      expect(code).toBe(0);
    });
  },
);

test('the sandbox of Chromium stays on, and the fuses are blown', () => {
  const config = builderConfig({ electronVersion: '45.5.0' });
  expect(config.toolsets).toEqual({ appimage: '1.0.3' });
  expect(config.linux.executableArgs).toEqual([]);
  expect(config.electronFuses).toBe(fuses);
  expect(fuses).toEqual({
    runAsNode: false,
    enableCookieEncryption: true,
    enableNodeOptionsEnvironmentVariable: false,
    enableNodeCliInspectArguments: false,
    enableEmbeddedAsarIntegrityValidation: true,
    onlyLoadAppFromAsar: true,
    loadBrowserProcessSpecificV8Snapshot: false,
    grantFileProtocolExtraPrivileges: false,
  });
});

test('types are removed in place, and names of our own files end in what is there', () => {
  const source = `import { a } from './a.ts';\nnew URL('main.ts', import.meta.url);\nconst b: string = 'x.ts is a file';\n`;
  expect(stripSource(source)).toBe(
    `import { a } from './a.js';\nnew URL('main.js', import.meta.url);\nconst b         = 'x.ts is a file';\n`,
  );
});

describe('finding Electron', () => {
  test('ELECTRON_OVERRIDE_DIST_PATH is taken at its word, and told where it is wrong', async () => {
    const env = { ELECTRON_OVERRIDE_DIST_PATH: join(base, 'own') };
    expect(electronBinary({ folder: base, env, platform: 'linux' })).toBe(join(base, 'own/electron'));
    expect(await obtainElectron({ folder: base, env })).toMatchObject({
      reason: expect.stringMatching(/ELECTRON_OVERRIDE_DIST_PATH names a folder without Electron/) as string,
    });
  });

  test('an installer that fails is told, with its reason', async () => {
    const folder = join(base, 'electron');
    mkdirSync(folder);
    writeFileSync(join(folder, 'package.json'), '{"version":"45.5.0"}');
    writeFileSync(
      join(folder, 'install.js'),
      'console.error("HTTPError: 404 " + process.env.ELECTRON_MIRROR); process.exit(1);',
    );
    const found = await obtainElectron({
      folder,
      env: { ...process.env, ELECTRON_MIRROR: 'https://mirror/' },
    });
    expect(found).toEqual({ reason: 'Electron could not be fetched (HTTPError: 404 https://mirror/)' });
  });
});

test('npm start -- --browser opens the same workbench by serve, and says why', async () => {
  const { output } = await ended(
    process.execPath,
    ['build/start.mjs', '--browser', '--no-open', '--port', '0'],
    { ...process.env, CARAVAN_HOME: join(base, 'home'), CARAVAN_HOST_IDLE_S: '1' },
    (text) => /http:\/\/127\.0\.0\.1:\d+\/\?token=/.test(text),
  );
  expect(output).toMatch(/in the browser: --browser was given/);
});

describe.runIf(needs('electron'))('in a real Electron', () => {
  test('the window opens, is sandboxed, and speaks to its host', { timeout: 180_000 }, async () => {
    await stageApp();
    const app = await _electron.launch({
      executablePath: electronBinary(),
      args: [appFolder],
      env: { ...(process.env as Record<string, string>), CARAVAN_HOME: join(base, 'app-home') },
    });
    const page = await app.firstWindow();
    await expect.poll(() => page.url(), { timeout: 60_000 }).toMatch(/^app:\/\/workbench\//);
    expect(await page.evaluate('typeof require + typeof process')).toBe('undefinedundefined');
    expect(await page.evaluate('window.workbench.kind')).toBe('app');
    await expect.poll(() => page.textContent('body'), { timeout: 60_000 }).toMatch(/Datasets/);
    await app.close();
  });
});

/** @param until end it by SIGINT once its output says so */
function ended(
  program: string,
  args: string[],
  env: Record<string, string | undefined>,
  until: (output: string) => boolean = () => false,
): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd: dirname(import.meta.dirname), env: env as NodeJS.ProcessEnv });
    let output = '';
    const hear = (text: string) => {
      output += text;
      if (until(output)) child.kill('SIGINT');
    };
    child.stdout.setEncoding('utf8').on('data', hear);
    child.stderr.setEncoding('utf8').on('data', hear);
    child.on('close', (code) => resolve({ code, output }));
  });
}
