/** Homes with long histories, made by SQL: what lists and charts of thousands of runs and millions of steps are tested on. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { newRun } from '../../core/services/training/newRun.ts';
import { writeRunFolder, type RunLock } from '../../core/services/training/runFolder.ts';
import { createRunTable } from '../../core/services/training/runTable.ts';
import { createStepTable } from '../../core/services/training/stepTable.ts';
import { runConfigSchema } from '../../core/shared/run/runConfig.ts';
import type { Run } from '../../core/shared/run/run.ts';
import { openStore } from '../../core/store/openStore.ts';

interface SeededRun {
  id: string;
  more?: Partial<Run>;
  /** Steps with every metric; a spike at a tenth, values that are not finite at a fifth. */
  steps?: number;
}

export async function seedRuns(home: string, seeded: readonly SeededRun[]): Promise<void> {
  mkdirSync(join(home, 'runs'), { recursive: true });
  const store = await openStore({ file: join(home, 'caravan.db'), reserveBytes: 0 });
  const steps = createStepTable(store);
  const runs = createRunTable(store, steps);
  const keys: { key: number; count: number }[] = [];
  store.transaction(() => {
    for (const [index, { id, more, steps: count = 0 }] of seeded.entries()) {
      const dir = join(home, 'runs', id);
      const method = index % 3 === 0 ? 'lora' : 'pesc';
      const config =
        more?.config ?? runConfigSchema.parse({ model: 'base', mix: 'mix', method, numExperts: 8 });
      const lock = lockOf(id, dir, count);
      const run: Run = {
        ...newRun(dir, config, lock),
        state: 'completed',
        step: count,
        createdAt: 1_700_000_000_000 + index * 60_000,
        ...more,
      };
      keys.push({ key: runs.insert(run, lock).key, count });
    }
    for (const { key, count } of keys) {
      if (count === 0) continue;
      store.run(
        `INSERT INTO steps
           WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
           SELECT :key, n, 0, n * 1.0 / :count,
             CASE WHEN n = :count / 10 THEN 40.0 WHEN n = :count / 5 THEN NULL
               ELSE 1 + 2.0 / (1 + n / 1e4) + (n * 7919 % 1000) / 5000.0 END,
             0.01 + (n % 100) / 1e5, 0.1, 2e-4, 0.5 + (n * 104729 % 1000) / 2000.0, 0,
             4096, 2048, 128, 100.0 + n % 7, 40000.0 + n * 31 % 2000, 8000000000 + n % 1000, 1700000000000 + n * 100,
             n * 4096, n * 103.0 FROM numbers`,
        { key, count },
      );
      store.run(
        `INSERT INTO step_arrays SELECT run_key, step, x'', x'', x'' FROM steps WHERE run_key = ? AND step > ?`,
        [key, count - 64],
      );
    }
  });
  for (const { key } of keys) while (!steps.fillBuckets(key));
  await store.close();
  for (const { id, steps: count = 0 } of seeded) {
    if (count === 0) continue;
    const dir = join(home, 'runs', id);
    await writeRunFolder(dir, runConfigSchema.parse({ model: 'base', mix: 'mix' }), lockOf(id, dir, count));
  }
}

function lockOf(id: string, dir: string, totalSteps: number): RunLock {
  return {
    schema: 'caravan-run-1',
    id,
    name: `run-${id}`,
    createdAt: 1,
    versions: {},
    device: 'cpu',
    seed: 1,
    model: { name: 'base', dir: '/nowhere/base', identity: null, tokenizerHash: 't' },
    mix: { name: 'mix', dir: '/nowhere/mix', contentHash: 'c', template: 'camelidae' },
    totalSteps,
    options: { checkpointDir: join(dir, 'checkpoints') } as RunLock['options'],
  };
}
