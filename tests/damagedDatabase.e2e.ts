/** A page of the database that a failing disk has overwritten: the workbench starts all the same, and says what it kept. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Run } from '../core/shared/run/run.ts';
import { connectOrStart } from '../core/host/connect.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs } from './support/skip.ts';
import { writeTinyModel } from './support/tinyModel.ts';

const pageSize = 4096;

describe.runIf(needs('addon', 'a damaged database'))('a damaged database', () => {
  let caravan: CaravanHome;
  let file: string;

  beforeAll(async () => {
    caravan = makeCaravanHome();
    file = join(caravan.home, 'caravan.db');
    const model = writeTinyModel(join(caravan.folder, 'tiny'));
    const row = (index: number) =>
      `${JSON.stringify({ question: `What is ${index} plus 1?`, answer: `It is ${index + 1}.` })}\n`;
    caravan.write('rows.jsonl', Array.from({ length: 64 }, (_, index) => row(index)).join(''));
    await caravan.json('import', 'rows.jsonl');
    caravan.write(
      'recipe.yaml',
      `name: mix\nmodel: ${model}\nseqLen: 64\nsources: [{ name: rows, source: rows }]\n`,
    );
    await caravan.json('mix', 'recipe.yaml');
    caravan.write(
      'run.yaml',
      `name: kept\nmodel: ${model}\nmix: mix\nbaseDtype: f32\ncomputeDtype: f32\nloraRank: 4\nnumExperts: 2\ntopK: 1\nadapterDim: 8\n` +
        'batchSize: 4\nmicroBatchSize: 2\nseqLen: 64\nthreads: 1\n',
    );
    await caravan.json('train', 'run.yaml');
    await caravan.json('runs', 'star', 'kept');
  });

  afterAll(() => caravan?.endHost());

  async function history(): Promise<{ run: Run; steps: unknown[]; sources: string[] }> {
    const client = await connectOrStart({ home: caravan.home });
    try {
      const named = () => client.call('findRun', { ref: 'kept' });
      // Folders are read beside other work, so that a window need not wait for them.
      await expect.poll(async () => (await named()).state, { timeout: 30_000 }).toBe('completed');
      const run = await named();
      const steps = await client.call('readSteps', { id: run.id, limit: 2000 });
      return { run, steps, sources: (await client.call('listSources', {})).map(({ name }) => name) };
    } finally {
      client.close();
    }
  }

  test('keeps what the other pages hold, and reads the runs back from their folders', async () => {
    const before = await history();
    expect(before.steps).toHaveLength(16);
    await caravan.endHost();
    // The page that holds the steps' and the runs' rows, wherever it is: the run's lock is written there.
    const bytes = readFileSync(file);
    const at = bytes.indexOf(`"${before.run.id}"`);
    expect(at).toBeGreaterThan(0);
    bytes.fill(0x55, Math.floor(at / pageSize) * pageSize, (Math.floor(at / pageSize) + 1) * pageSize);
    writeFileSync(file, bytes);
    const { code, stderr } = await caravan.run('runs');
    expect(stderr).toContain('the database was damaged');
    expect(stderr).toContain('1 of sources');
    expect(stderr).toContain('runs are read back from their folders');
    expect(code).toBe(0);
    expect(existsSync(`${file}.damaged-1`)).toBe(true);
    const after = await history();
    expect(after.sources).toEqual(before.sources);
    expect(after.steps).toEqual(before.steps);
    // Folders know the first step, not the moment before it.
    expect({ ...after.run, startedAt: 0 }).toEqual({ ...before.run, startedAt: 0 });
  });

  test('that is none at all is moved aside too', async () => {
    const before = await history();
    await caravan.endHost();
    writeFileSync(file, 'this is no database. '.repeat(1000));
    const { stderr } = await caravan.run('runs');
    expect(stderr).toContain('it is not an SQLite file');
    expect(existsSync(`${file}.damaged-2`)).toBe(true);
    const after = await history();
    // Folders know the first step, not the moment before it.
    expect({ ...after.run, startedAt: 0 }).toEqual({ ...before.run, startedAt: 0 });
    expect(after.steps).toEqual(before.steps);
  });
});
