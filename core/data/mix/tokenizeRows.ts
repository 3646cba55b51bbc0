import type { DuckDBAppender } from '@duckdb/node-api';
import type { AddonTokenizer } from '../../engine/AddonTypes.ts';
import { encodeConversations, type EncodedConversation } from '../../prompt/encodeConversations.ts';
import { renderJinja } from '../../prompt/renderJinja.ts';
import { describeStep, stepsOf, type CleanStep } from '../../shared/dataset/cleaning.ts';
import type { Recipe } from '../../shared/dataset/recipe.ts';
import type { RejectReason } from '../../shared/dataset/source.ts';
import { renderTemplate, type TemplateTokens } from '../../shared/dataset/template.ts';
import type { Report } from '../protocol.ts';
import { readTexts, type RowTable } from './rowTable.ts';
import type { TokenStore } from './tokenStore.ts';

/** Conversations tokenised at a time. */
const batchRows = 2000;

export interface Tokenizing {
  table: RowTable;
  recipe: Recipe;
  tokenizer: AddonTokenizer;
  tokens: TemplateTokens;
  threads: number;
  report: Report;
  stop: () => void;
}

/** How one row comes out. */
interface Verdict {
  /** Before the cut at `seqLen`. */
  length: number;
  targetTokens: number;
  reason: RejectReason | null;
  detail: string;
  step: string | null;
}

/**
 * Counts tokens of the rows marked in `wanted`, rejects those that are too long or that a `tokens` step leaves out, and
 * keeps the tokens of the others in `store`, where there is one.
 */
export async function tokenizeRows(
  work: Tokenizing,
  wanted: Uint8Array,
  store: TokenStore | null,
): Promise<void> {
  const { table, recipe, report, stop } = work;
  const { connection } = table;
  let total = 0;
  for (const one of wanted) total += one;
  await connection.run(
    'CREATE TEMP TABLE counts (id BIGINT, tokens INTEGER, target_tokens INTEGER, reason VARCHAR, detail VARCHAR, step VARCHAR)',
  );
  const counts = await connection.createAppender('counts');
  let done = 0;
  for await (const verdicts of encodeAll(work, wanted)) {
    stop();
    for (const { id, verdict, encoded } of verdicts) {
      append(counts, id, verdict);
      if (verdict.reason === null)
        store?.add(id, encoded.ids.subarray(0, recipe.seqLen), encoded.targets.subarray(0, recipe.seqLen));
    }
    done += verdicts.length;
    report({ done, total, unit: 'rows', stage: 'tokenising' });
  }
  counts.closeSync();
  store?.flush();
  await connection.run(`UPDATE rows SET tokens = least(counts.tokens, ${recipe.seqLen}), target_tokens = counts.target_tokens,
    reason = counts.reason, detail = counts.detail, step = counts.step FROM counts WHERE counts.id = rows.id`);
  await connection.run('DROP TABLE counts');
}

export interface Encoded {
  id: number;
  source: number;
  verdict: Verdict;
  encoded: EncodedConversation;
}

/** Encodes one batch while the next is read and rendered. */
export async function* encodeAll(
  { table, recipe, tokenizer, tokens, threads }: Omit<Tokenizing, 'report' | 'stop'>,
  wanted: Uint8Array,
): AsyncGenerator<Encoded[]> {
  const limits = recipe.sources.map((source, index) =>
    stepsOf(recipe, source, index).flatMap(({ place, step }) =>
      step.step === 'tokens' ? [{ place, step }] : [],
    ),
  );
  let pending: Promise<Encoded[]> | null = null;
  for await (const rows of readTexts(table, wanted, batchRows)) {
    const conversations = rows.map(({ messages }) =>
      renderTemplate(recipe.template, messages, tokens, renderJinja),
    );
    const results = encodeConversations(tokenizer, conversations, threads).then((all) =>
      all.map((encoded, at): Encoded => {
        const { id, source } = rows[at]!;
        return { id, source, encoded, verdict: judge(encoded, recipe.seqLen, limits[source]!) };
      }),
    );
    results.catch(() => {}); // met at the next turn
    if (pending) yield await pending;
    pending = results;
  }
  if (pending) yield await pending;
}

/** A row is dropped when no answer token is left after the cut; a longer answer is cut and still trains. */
function judge(
  { ids, targets }: EncodedConversation,
  seqLen: number,
  limits: readonly { place: string; step: Extract<CleanStep, { step: 'tokens' }> }[],
): Verdict {
  let targetTokens = 0;
  const length = Math.min(ids.length, seqLen);
  for (let i = 0; i < length; i++) targetTokens += targets[i]!;
  const common = { length: ids.length, targetTokens };
  for (const { place, step } of limits) {
    const size = step.of === 'row' ? ids.length : targets.reduce((sum, one) => sum + one, 0);
    if (size >= (step.min ?? 0) && size <= (step.max ?? Infinity)) continue;
    return {
      ...common,
      reason: 'filtered',
      detail: `${size} tokens; wanted: ${describeStep(step)}`,
      step: place,
    };
  }
  // The first token of a row is never predicted, so it cannot be the only target.
  const usable = targetTokens - (targets[0] ?? 0);
  if (usable > 0) return { ...common, reason: null, detail: '', step: null };
  const detail = `${ids.length} tokens, the limit is ${seqLen}; the answer begins at token ${targets.indexOf(1) + 1}`;
  return { ...common, reason: 'prompt_too_long', detail, step: 'seqLen' };
}

function append(
  counts: DuckDBAppender,
  id: number,
  { length, targetTokens, reason, detail, step }: Verdict,
): void {
  counts.appendBigInt(BigInt(id));
  counts.appendInteger(length);
  counts.appendInteger(targetTokens);
  if (reason === null) {
    counts.appendNull();
    counts.appendNull();
    counts.appendNull();
  } else {
    counts.appendVarchar(reason);
    counts.appendVarchar(detail);
    if (step === null) counts.appendNull();
    else counts.appendVarchar(step);
  }
  counts.endRow();
}
