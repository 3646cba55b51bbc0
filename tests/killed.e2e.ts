/** kill -9 of the engine and of the host in the midst of training: nothing that was kept is lost, and the end is the same. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connectOrStart } from '../core/host/connect.ts';
import { processStart } from '../core/process/processIdentity.ts';
import type { Client } from '../core/shared/contract/client.ts';
import type { Run, RunState } from '../core/shared/run/run.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs } from './support/skip.ts';
import { writeTinyModel } from './support/tinyModel.ts';

const totalSteps = 60;
const ended: readonly RunState[] = ['completed', 'stopped', 'failed', 'interrupted'];

describe.runIf(needs('addon', 'killing engine and host'))('a run that is killed', () => {
  let caravan: CaravanHome;
  let client: Client;
  let model: string;
  let expected: Record<string, string>;

  beforeAll(async () => {
    caravan = makeCaravanHome();
    model = writeTinyModel(join(caravan.folder, 'tiny'));
    const row = (index: number) =>
      `${JSON.stringify({ question: `What is ${index} plus 1?`, answer: `It is ${index + 1}.` })}\n`;
    caravan.write('rows.jsonl', Array.from({ length: 96 }, (_, index) => row(index)).join(''));
    await caravan.json('import', 'rows.jsonl');
    caravan.write(
      'recipe.yaml',
      `name: mix\nmodel: ${model}\nseqLen: 64\nsources: [{ name: rows, source: rows, count: 80 }]\nvalidation: { perSource: 8 }\n`,
    );
    await caravan.json('mix', 'recipe.yaml');
    client = await connectOrStart({ home: caravan.home });
  });

  afterAll(async () => {
    client?.close();
    await caravan?.endHost();
  });

  function start(name: string): Promise<Run> {
    return client.call('startRun', {
      config: {
        name,
        model,
        mix: 'mix',
        baseDtype: 'nf4',
        computeDtype: 'f32',
        loraRank: 4,
        numExperts: 4,
        adapterDim: 8,
        batchSize: 4,
        microBatchSize: 1,
        seqLen: 64,
        epochs: 3,
        lr: 0.003,
        saveSteps: 7,
        evalSteps: 20,
        seed: 5,
        threads: 1,
      },
    });
  }

  /** What training leaves, by file; times and places are no part of it. */
  function finalCheckpoint(run: Run): Record<string, string> {
    expect(run.step).toBe(totalSteps);
    const digest = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');
    return Object.fromEntries(
      readdirSync(run.lastCheckpoint!)
        .sort()
        .map((name) => [name, digest(join(run.lastCheckpoint!, name))]),
    );
  }

  async function untilEnded({ id }: Run): Promise<Run> {
    await expect
      .poll(async () => ended.includes((await client.call('getRun', { id })).state), {
        timeout: 60_000,
        interval: 50,
      })
      .toBe(true);
    return client.call('getRun', { id });
  }

  async function untilStep({ id }: Run, step: number): Promise<void> {
    await expect
      .poll(async () => (await client.call('getRun', { id })).step, { timeout: 60_000, interval: 2 })
      .toBeGreaterThanOrEqual(step);
  }

  async function trainingPid(): Promise<number> {
    const { processes } = await client.call('systemStatus', {});
    const pid = processes.find(({ name }) => /train/i.test(name))?.pid;
    if (pid === undefined) throw new Error(`no training engine among ${JSON.stringify(processes)}`);
    return pid;
  }

  async function resumeToEnd(run: Run): Promise<void> {
    await client.call('resumeRun', { id: run.id });
    await endsWhole(run);
  }

  async function endsWhole(run: Run): Promise<void> {
    const whole = await untilEnded(run);
    expect(whole).toMatchObject({ state: 'completed', attempt: 1 });
    expect(finalCheckpoint(whole)).toEqual(expected);
    const steps = (await client.call('readSteps', { id: run.id, limit: 2000 })).map(({ step }) => step);
    expect(steps, 'one history, without doubles or holes').toEqual(
      Array.from({ length: totalSteps }, (_, index) => index + 1),
    );
  }

  test('left alone it ends with these bytes', async () => {
    const whole = await untilEnded(await start('whole'));
    expect(whole.state).toBe('completed');
    expected = finalCheckpoint(whole);
    expect(Object.keys(expected)).toEqual(expect.arrayContaining(['manifest.json', 'trainable.safetensors']));
  });

  test.each([1, 9, 30])(
    'engine, after step %i: the host lives on, and the resumed run ends with the same bytes',
    async (step) => {
      const run = await start(`engine ${step}`);
      await untilStep(run, step);
      process.kill(await trainingPid(), 'SIGKILL');
      const killed = await untilEnded(run);
      expect(killed.state).toBe('interrupted');
      expect(killed.crash).toMatchObject({ signal: 'SIGKILL' });
      await resumeToEnd(run);
    },
  );

  test('host: the engine ends too, the next host takes over, says so, and resumes', async () => {
    const run = await start('host');
    await untilStep(run, 12);
    const engine = await trainingPid();
    const host = (await client.call('hello', {})).pid;
    process.kill(host, 'SIGKILL');
    const remarks: string[] = [];
    client = await connectOrStart({ home: caravan.home, onRemark: (text) => remarks.push(text) });
    expect(remarks).toEqual([expect.stringContaining(`process ${host}`)]);
    expect(processStart(engine), 'the next host waits for the engine to save and end').toBeNull();
    await expect
      .poll(async () => (await client.call('getRun', { id: run.id })).state, { timeout: 10_000 })
      .toBe('interrupted');
    // What the engine did without a host is in the metrics: the checkpoint is not ahead of them.
    await expect
      .poll(async () => {
        const { step, lastCheckpoint } = await client.call('getRun', { id: run.id });
        return lastCheckpoint?.endsWith(`step-${String(step).padStart(6, '0')}`);
      })
      .toBe(true);
    expect(await client.call('getRun', { id: run.id })).toMatchObject({
      stepZeroDifference: 0,
      quantizationDifference: expect.any(Number) as number,
    });
    await resumeToEnd(run);
  });

  test('host, and its engine lingers: train --resume waits for the engine, says so, and resumes', async () => {
    const run = await start('lingering');
    await untilStep(run, 12);
    const engine = await trainingPid();
    const host = (await client.call('hello', {})).pid;
    process.kill(engine, 'SIGSTOP');
    process.kill(host, 'SIGKILL');
    const resume = caravan.start('train', '--resume', 'lingering', '--json');
    let said = '';
    resume.child.stderr!.on('data', (text: string) => (said += text));
    await expect.poll(() => said, { timeout: 30_000 }).toMatch(new RegExp(`Waiting for .*process ${engine}`));
    expect(processStart(engine)).not.toBeNull();
    process.kill(engine, 'SIGCONT');
    expect(await resume.ended).toMatchObject({ code: 0 });
    client = await connectOrStart({ home: caravan.home });
    await endsWhole(run);
  });

  test('SIGTERM to the host stops the run with a checkpoint; it goes on from exactly there', async () => {
    const run = await start('asked');
    await untilStep(run, 12);
    const host = (await client.call('hello', {})).pid;
    process.kill(host, 'SIGTERM');
    await expect.poll(() => processStart(host), { timeout: 20_000 }).toBeNull();
    client = await connectOrStart({ home: caravan.home });
    const stopped = await client.call('getRun', { id: run.id });
    expect(ended).toContain(stopped.state);
    expect(stopped.lastCheckpoint).toMatch(new RegExp(`step-0*${stopped.step}$`));
    await resumeToEnd(run);
  });
});
