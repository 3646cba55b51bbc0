import { describe, expect, it } from 'vitest';
import { accuracy, evaluate } from './evaluate.ts';
import { generateRows } from './generate.ts';

const kinds = ['general', 'code', 'math'] as const;
const rows = kinds.flatMap((kind) => generateRows(kind, 'heldout', 5, 40));

describe('evaluate', () => {
  it('counts rows by kind, by task and the easy ones among them', () => {
    const report = evaluate(
      rows.map((row) => ({ row, answerText: row.kind === 'math' ? row.brief : 'I do not know' })),
    );
    expect(report.all).toEqual({ right: 40, total: 120 });
    expect(report.byKind.math.all).toEqual({ right: 40, total: 40 });
    expect(report.byKind.code.all.right).toBe(0);
    const easy = rows.filter((row) => row.easy);
    expect(report.easy).toEqual({
      right: easy.filter((row) => row.kind === 'math').length,
      total: easy.length,
    });
    expect(Object.values(report.byTask).reduce((sum, score) => sum + score.total, 0)).toBe(120);
    expect(accuracy(report.all)).toBeCloseTo(1 / 3);
  });

  it('says 0 where nothing was asked', () => {
    expect(accuracy(evaluate([]).easy)).toBe(0);
  });
});
