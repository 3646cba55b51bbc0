import { availableParallelism } from 'node:os';
import { CaravanError } from '../shared/contract/errors.ts';
import type { AddonModel, AddonTokenizer, ScoreResult } from './AddonTypes.ts';

/** Ids of each text with what the tokenizer itself puts first by default, as far as that is a BOS. */
export async function encodeTexts(
  tokenizer: AddonTokenizer,
  texts: string[],
  threads: number,
): Promise<Int32Array[]> {
  const { ids, offsets } = await tokenizer.encodeBatch(texts, { threads });
  const { bosId } = tokenizer;
  return texts.map((_, index) => {
    const text = ids.subarray(offsets[index], offsets[index + 1]);
    if (bosId === null) return text.slice();
    const row = new Int32Array(text.length + 1);
    row[0] = bosId;
    row.set(text, 1);
    return row;
  });
}

/**
 * Context and continuation are tokenised together, and the continuation's ids are those after as many as the context
 * alone has: a token that spans the border counts to the context, as in lm-evaluation-harness.
 */
export async function scoreRows(
  model: Pick<AddonModel, 'score'>,
  tokenizer: AddonTokenizer,
  rows: readonly { context: string; continuation: string }[],
): Promise<(ScoreResult & { ids: number[] })[]> {
  const threads = availableParallelism();
  const whole = await encodeTexts(
    tokenizer,
    rows.map(({ context, continuation }) => context + continuation),
    threads,
  );
  const contexts = await encodeTexts(
    tokenizer,
    rows.map(({ context }) => context),
    threads,
  );
  const firstScored = contexts.map((context, index) => {
    if (context.length === 0)
      throw new CaravanError('bad_option', `row ${index}: the context has no token to predict from`, {
        mend: 'Give it a context: this tokenizer has no BOS by default.',
      });
    return Math.min(context.length, whole[index]!.length);
  });
  const scores = await model.score(whole, firstScored);
  return scores.map((score, index) => ({
    ...score,
    ids: Array.from(whole[index]!.subarray(firstScored[index])),
  }));
}
