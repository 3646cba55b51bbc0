/** A disk that fills up while a run trains: exit code 3, the last checkpoint kept, and the run goes on once there is room. */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Run } from '../core/shared/run/run.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs } from './support/skip.ts';
import { writeTinyModel } from './support/tinyModel.ts';

const runnable = needs('addon', 'training on a full disk') && needs('mount');

describe.runIf(runnable)('a full disk', () => {
  let caravan: CaravanHome;
  let ballast: string;

  beforeAll(async () => {
    caravan = makeCaravanHome();
    mkdirSync(caravan.home);
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', caravan.home]);
    expect(mounted.status).toBe(0);
    ballast = join(caravan.home, 'ballast');
    const model = writeTinyModel(join(caravan.folder, 'tiny'));
    const row = (index: number) =>
      `${JSON.stringify({ question: `What is ${index} plus 1?`, answer: `It is ${index + 1}.` })}\n`;
    caravan.write('rows.jsonl', Array.from({ length: 80 }, (_, index) => row(index)).join(''));
    await caravan.json('import', 'rows.jsonl');
    caravan.write(
      'recipe.yaml',
      `name: mix\nmodel: ${model}\nseqLen: 64\nsources: [{ name: rows, source: rows }]\nvalidation: { perSource: 8 }\n`,
    );
    await caravan.json('mix', 'recipe.yaml');
    caravan.write(
      'run.yaml',
      `name: crowded\nmodel: ${model}\nmix: mix\nbaseDtype: f32\ncomputeDtype: f32\nloraRank: 8\nnumExperts: 8\n` +
        'adapterDim: 128\nbatchSize: 4\nmicroBatchSize: 1\nseqLen: 64\nepochs: 12\nsaveSteps: 4\nkeepCheckpoints: 1\nthreads: 1\n',
    );
  });

  afterAll(async () => {
    await caravan?.endHost();
    if (caravan) spawnSync('umount', ['-l', caravan.home]);
  });

  /** Leaves less room than a checkpoint takes; the run writes on meanwhile, so what is free is asked again and again. */
  function fillDisk(): void {
    const file = openSync(ballast, 'w');
    const left = 256 * 1024;
    const chunk = Buffer.alloc(16 * 1024, 1);
    for (;;) {
      const { bavail, bsize } = statfsSync(caravan.home);
      if (bavail * bsize < left) break;
      writeSync(file, chunk);
    }
    closeSync(file);
  }

  test('ends the run with code 3 and what to do; with room again it resumes to its end', async () => {
    const training = caravan.start('train', 'run.yaml', '--json');
    await expect
      .poll(
        async () =>
          (await caravan.json<Run[]>('runs', 'list')).find(({ name }) => name === 'crowded')?.lastCheckpoint,
        { timeout: 60_000, interval: 100 },
      )
      .toMatch(/step-\d+$/);
    fillDisk();
    const { code, stderr } = await training.ended;
    expect(code).toBe(3);
    expect(stderr).toMatch(/disk|space/i);
    expect(stderr).toContain('caravan train --resume');

    const failed = await caravan.json<Run>('runs', 'show', 'crowded');
    expect(failed.error).toMatchObject({ code: 'disk_full' });
    expect(failed.lastCheckpoint).toMatch(/step-\d+$/);

    rmSync(ballast);
    const resumed = await caravan.run('train', '--resume', 'crowded', '--json');
    expect(resumed.stderr).not.toMatch(/caravan: /);
    expect(resumed.code).toBe(0);
    const whole = await caravan.json<Run>('runs', 'show', 'crowded');
    expect(whole).toMatchObject({ state: 'completed', attempt: 1, step: whole.totalSteps });
  });
});
