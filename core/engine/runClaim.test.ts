import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { machineIdentity, processStart } from '../process/processIdentity.ts';
import { claimRun, engineOf, outliveEngine, releaseRun } from './runClaim.ts';

let dir: string;
let child: ChildProcess;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'claim-'));
  child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
});
afterEach(() => {
  child.kill('SIGKILL');
  rmSync(dir, { recursive: true });
});

test('an engine holds its folder while it lives', async () => {
  expect(engineOf(dir)).toBeNull();
  claimRun(dir, child.pid!);
  expect(engineOf(dir)).toBe(child.pid);
  const waiting = vi.fn();
  let free = false;
  const outlived = outliveEngine(dir, 20_000, waiting).then((killed) => {
    free = true;
    return killed;
  });
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(free).toBe(false);
  child.kill();
  expect(await outlived).toBe(false);
  expect(waiting.mock.calls).toEqual([[child.pid]]);
  releaseRun(dir);
  expect(engineOf(dir)).toBeNull();
});

test('one that does not end is killed', async () => {
  claimRun(dir, child.pid!);
  expect(await outliveEngine(dir, 100, () => {})).toBe(true);
  expect(processStart(child.pid!)).toBeNull();
});

test('neither a later process of that id, nor another boot, nor a broken file holds it', () => {
  const claim = { pid: child.pid!, processStart: processStart(child.pid!)!, machine: machineIdentity() };
  const write = (text: string) => writeFileSync(join(dir, 'engine.json'), text);
  write(JSON.stringify(claim));
  expect(engineOf(dir)).toBe(child.pid);
  for (const change of [{ processStart: '1' }, { machine: 'elsewhere' }, { pid: 'x' }]) {
    write(JSON.stringify({ ...claim, ...change }));
    expect(engineOf(dir)).toBeNull();
  }
  write('{"pid":');
  expect(engineOf(dir)).toBeNull();
});
