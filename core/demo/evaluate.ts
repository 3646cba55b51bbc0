import { checkAnswer } from './checkAnswer.ts';
import type { Row } from './generate.ts';
import type { Kind } from './problem.ts';

/** A row with the answer that a model gave to it. */
export interface AnsweredRow {
  row: Row;
  answerText: string;
}

/** Right answers out of all. */
export interface Score {
  right: number;
  total: number;
}

/** Exact match of a set of answers: in all, by kind, by task, and the same for easy rows alone. */
export interface EvaluationReport {
  all: Score;
  easy: Score;
  byKind: Record<Kind, { all: Score; easy: Score }>;
  byTask: Record<string, Score>;
}

/** Scores answers by exact match; tasks are keyed `kind/task` and appear in the order of their first row. */
export function evaluate(answers: readonly AnsweredRow[]): EvaluationReport {
  const report: EvaluationReport = {
    all: emptyScore(),
    easy: emptyScore(),
    byKind: {
      general: { all: emptyScore(), easy: emptyScore() },
      code: { all: emptyScore(), easy: emptyScore() },
      math: { all: emptyScore(), easy: emptyScore() },
    },
    byTask: {},
  };
  for (const { row, answerText } of answers) {
    const right = checkAnswer(row, answerText);
    const kind = report.byKind[row.kind];
    const task = (report.byTask[`${row.kind}/${row.task}`] ??= emptyScore());
    for (const score of [report.all, kind.all, task]) addTo(score, right);
    if (row.easy) for (const score of [report.easy, kind.easy]) addTo(score, right);
  }
  return report;
}

/** The share of right answers in [0, 1]; 0 where nothing was asked. */
export function accuracy(score: Score): number {
  return score.total === 0 ? 0 : score.right / score.total;
}

function emptyScore(): Score {
  return { right: 0, total: 0 };
}

function addTo(score: Score, right: boolean): void {
  score.total += 1;
  if (right) score.right += 1;
}
