/** `caravan demo` as a newcomer runs it, shortened, and run twice. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { demoDocument } from '../core/cli/demo/demoReport.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs } from './support/skip.ts';

type Report = ReturnType<typeof demoDocument>;

describe.runIf(needs('addon', 'the demo'))('the demo', () => {
  let caravan: CaravanHome;
  let first: Report;

  beforeAll(() => {
    caravan = makeCaravanHome();
  });
  afterAll(() => caravan?.endHost());

  test('mixes, crafts, trains, and reports what changed', async () => {
    first = await caravan.json<Report>('demo', '--steps', '12', '--questions', '4');
    expect(first.rowsIn).toBe(3420);
    expect(first.rowsMixed).toBeLessThan(first.rowsIn);
    const [general, code, math] = first.sources.map(({ rows }) => rows);
    expect(code).toBe(math);
    expect(general).toBe(3 * code!);
    expect(first.stepZeroDifference).toBe(0);
    expect(first.quantizationDifference).toBeNull();
    for (const { source, lossBefore, lossAfter, expertShares } of first.sources) {
      expect(lossAfter, source).toBeLessThan(lossBefore!);
      expect(expertShares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 6);
    }
    expect(first.answers.map(({ kind }) => kind)).toEqual(['general', 'code', 'math']);
    expect(existsSync(join(first.runDir, 'metrics.jsonl'))).toBe(true);
  });

  test('run again it makes a mix of the same bytes and losses of the same digits', async () => {
    const { code, stdout } = await caravan.run('demo', '--steps', '12', '--questions', '4', '--json');
    expect(code).toBe(0);
    const second = JSON.parse(stdout) as Report;
    const repeatable = ({ mixHash, sources, answers, stepZeroDifference, mutualInformation }: Report) => ({
      mixHash,
      sources,
      answers,
      stepZeroDifference,
      mutualInformation,
    });
    expect(repeatable(second)).toEqual(repeatable(first));
    expect(second.run).not.toBe(first.run);
  });

  test('prints the report for people', async () => {
    const { code, stdout } = await caravan.run('demo', '--steps', '2', '--questions', '1');
    expect(code).toBe(0);
    for (const words of ['Rows', 'What training changed', 'Experts', 'npm run serve', first.mixHash])
      expect(stdout).toContain(words);
  });
});
