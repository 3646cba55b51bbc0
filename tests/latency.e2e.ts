/** The host answers at once whatever goes on beside: an import, a mix and a run in training. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connectOrStart } from '../core/host/connect.ts';
import type { CallName } from '../core/shared/contract/contract.ts';
import type { Client } from '../core/shared/contract/client.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs } from './support/skip.ts';
import { writeTinyModel } from './support/tinyModel.ts';

const promisedMs = 50;

describe.runIf(needs('addon', 'answers beside a live run'))('beside an import, a mix and a live run', () => {
  let caravan: CaravanHome;
  let client: Client;

  beforeAll(async () => {
    caravan = makeCaravanHome();
    const row = (index: number) =>
      `${JSON.stringify({ question: `What is ${index} plus 1?`, answer: `It is ${index + 1}.` })}\n`;
    caravan.write('rows.jsonl', Array.from({ length: 20_000 }, (_, index) => row(index)).join(''));
    caravan.write('few.jsonl', Array.from({ length: 200 }, (_, index) => row(index)).join(''));
    const model = writeTinyModel(join(caravan.folder, 'tiny'));
    await caravan.json('import', 'few.jsonl');
    caravan.write(
      'recipe.yaml',
      `name: mix\nmodel: ${model}\nseqLen: 64\nsources: [{ name: few, source: few }]\n`,
    );
    await caravan.json('mix', 'recipe.yaml');
    caravan.write(
      'run.yaml',
      `name: live\nmodel: ${model}\nmix: mix\nbaseDtype: f32\ncomputeDtype: f32\nloraRank: 4\nnumExperts: 2\ntopK: 1\nadapterDim: 8\n` +
        'batchSize: 4\nmicroBatchSize: 2\nseqLen: 64\nepochs: 1000\nsaveSteps: 50\nthreads: 1\n',
    );
    await caravan.json('train', 'run.yaml', '--detach');
    client = await connectOrStart({ home: caravan.home });
  });

  afterAll(async () => {
    client?.close();
    await caravan?.endHost();
  });

  test('a call that only reads is answered within 50 ms', async () => {
    const run = await client.call('findRun', { ref: 'live' });
    await expect
      .poll(async () => (await client.call('getRun', { id: run.id })).step, { timeout: 60_000 })
      .toBeGreaterThan(5);
    let working = true;
    const work = (async () => {
      for (let round = 0; round < 2; round++) {
        await caravan.json('import', 'rows.jsonl', '--name', `round ${round}`);
        caravan.write(
          'large.yaml',
          `name: large ${round}\nmodel: tiny\nsources: [{ name: rows, source: round ${round} }]\n`,
        );
        await caravan.json('mix', 'large.yaml');
      }
    })().finally(() => (working = false));
    const reads: [CallName, () => Promise<unknown>][] = [
      ['hello', () => client.call('hello', {})],
      ['listJobs', () => client.call('listJobs', {})],
      ['listSources', () => client.call('listSources', {})],
      ['listMixes', () => client.call('listMixes', {})],
      ['listModels', () => client.call('listModels', {})],
      ['listRuns', () => client.call('listRuns', {})],
      ['getRun', () => client.call('getRun', { id: run.id })],
      ['readSteps', () => client.call('readSteps', { id: run.id })],
      ['readSeries', () => client.call('readSeries', { id: run.id, metrics: ['loss', 'lr', 'gradNorm'] })],
      ['readRunLog', () => client.call('readRunLog', { id: run.id })],
      ['listThreads', () => client.call('listThreads', {})],
      ['systemStatus', () => client.call('systemStatus', {})],
    ];
    const times: { name: string; ms: number }[] = [];
    while (working) {
      for (const [name, read] of reads) {
        const begun = performance.now();
        await read();
        times.push({ name, ms: performance.now() - begun });
      }
      await sleep(10);
    }
    await work;
    expect(times.length).toBeGreaterThan(200);
    const byCall = Object.entries(Object.groupBy(times, ({ name }) => name)).map(([name, own]) => {
      const ms = own!.map((time) => time.ms).sort((a, b) => a - b);
      return {
        name,
        quarter: ms[Math.floor(ms.length / 4)]!,
        median: ms[Math.floor(ms.length / 2)]!,
        slowest: ms.at(-1)!,
      };
    });
    const slowest = byCall.toSorted((a, b) => b.slowest - a.slowest)[0]!;
    const late = times.filter(({ ms }) => ms > promisedMs).length;
    process.stderr.write(
      `${times.length} reads, ${late} over ${promisedMs} ms; slowest: ${slowest.name} ${slowest.slowest.toFixed(1)} ms (median ${slowest.median.toFixed(1)})\n`,
    );
    // Work of the host that keeps others waiting, whatever it is for: the host counts its thread's own time, which on a
    // loaded machine (shared caches and cores) is up to twice what it is on an idle one.
    const log = readFileSync(join(caravan.home, 'host.log'), 'utf8');
    const blocked = [...log.matchAll(/blocked for (\d+) ms/g)].map((match) => Number(match[1]));
    expect(Math.max(0, ...blocked)).toBeLessThan(2 * promisedMs);
    // A call that takes long takes long each time; what a loaded machine adds, it adds to some.
    for (const { name, quarter } of byCall) expect(quarter, name).toBeLessThan(promisedMs);
    await client.call('stopRun', { id: run.id });
  });
});
