/** The archive for servers: what is in it, and that it runs away from the checkout on its own Node. */
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runtimePackages, stageServer } from '../build/package_server.mjs';
import { readLocks } from '../core/host/HostLock.ts';
import { needs } from './support/skip.ts';

describe.runIf(process.platform === 'linux' && needs('addon', 'the archive for servers'))(
  'the archive for servers',
  () => {
    let base: string;
    let folder: string;
    let home: string;
    let command: string;

    beforeAll(async () => {
      base = mkdtempSync(join(tmpdir(), 'server-'));
      home = join(base, 'home');
      const staged = await stageServer();
      folder = join(base, 'opt', staged.name);
      cpSync(staged.folder, folder, { recursive: true });
      // People link the command to where their shell finds it.
      command = join(base, 'caravan');
      symlinkSync(join(folder, 'bin/caravan'), command);
    }, 300_000);

    afterAll(() => {
      for (const { record, life } of readLocks(home))
        if (life === 'alive') process.kill(record.pid, 'SIGTERM');
      rmSync(folder, { recursive: true, force: true });
    });

    /** As on a bare machine: no Node, no npm, nothing of this process's environment. */
    function start(...args: string[]) {
      const child = spawn(command, args, {
        cwd: base,
        env: { PATH: '/usr/bin:/bin', HOME: base, CARAVAN_HOME: home, CARAVAN_HOST_IDLE_S: '60' },
      });
      let stdout = '';
      let stderr = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
      child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
      const ended = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) =>
        child.on('close', (code) => resolve({ code, stdout, stderr })),
      );
      return { child, ended, output: () => stdout };
    }

    test('holds the packages that run needs, for this platform alone, and no tests', () => {
      const files = readdirSync(folder, { withFileTypes: true, recursive: true })
        .filter((entry) => !entry.isDirectory())
        .map((entry) => relative(folder, join(entry.parentPath, entry.name)));
      const packages = runtimePackages().map((path) => basename(path));
      for (const needed of ['better-sqlite3', 'onnxruntime-node', 'ws', 'zod', 'yaml', 'jinja'])
        expect(packages).toContain(needed);
      for (const name of ['electron', 'vite', 'vue', 'typescript', 'playwright-core'])
        expect(existsSync(join(folder, 'lib/caravan/node_modules', name)), name).toBe(false);
      expect(files.filter((file) => /\.(test|e2e|long)\.ts$/.test(file))).toEqual([]);
      const native = files.filter((file) => /\.(node|dll|dylib|so(\.\d+)*)$/.test(file));
      const platform = `${process.platform}-${process.arch}`;
      expect(native.map((file) => basename(file)).sort()).toEqual(
        [
          'caravan.node',
          'duckdb.node',
          'libduckdb.so',
          'libonnxruntime.so.1',
          `${platform}.node`,
          'onnxruntime_binding.node',
        ].sort(),
      );
      expect(files).toContain('lib/node-LICENSE');
      expect(files).toContain('lib/caravan/NOTICE');
    });

    test('answers from the embedded model, with nothing installed', async () => {
      const doctor = await start('doctor').ended;
      expect(doctor.stderr).toBe('');
      expect(doctor.stdout).toMatch(/✓ engine/);
      const model = join(folder, 'lib/caravan/demo/base');
      const { code, stdout, stderr } = await start(
        ...[
          'chat',
          '--model',
          model,
          '--prompt',
          'What is 2 plus 3?',
          '--max-tokens',
          '8',
          '--temperature',
          '0',
          '--json',
        ],
      ).ended;
      expect(stderr).not.toMatch(/error/i);
      expect(code).toBe(0);
      expect((JSON.parse(stdout) as { ids: number[] }).ids.length).toBeGreaterThan(0);
    });

    test('serves the page', async () => {
      const serve = start('serve', '--no-open', '--port', '0');
      await expect.poll(() => /http:\/\/\S+/.test(serve.output()), { timeout: 30_000 }).toBe(true);
      const url = /http:\/\/\S+/.exec(serve.output())![0];
      const entered = await fetch(url, { redirect: 'manual' });
      expect(entered.status).toBe(303);
      const cookie = entered.headers.getSetCookie()[0]!.split(';')[0]!;
      const page = await fetch(new URL('/', url), { headers: { cookie } });
      expect(await page.text()).toContain('<div id="app">');
      serve.child.kill('SIGINT');
      expect((await serve.ended).code).not.toBe(1);
    });
  },
);
