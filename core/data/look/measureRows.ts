/** What a model's tokenizer and template make of every row: how long it is, what trains, and whether it survives. */
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { encodeConversations } from '../../prompt/encodeConversations.ts';
import { renderJinja } from '../../prompt/renderJinja.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { Fate } from '../../shared/dataset/look.ts';
import type { Message } from '../../shared/dataset/source.ts';
import { renderTemplate } from '../../shared/dataset/template.ts';
import { openDatabase, select, sqlString } from '../database.ts';
import type { AddonLoader, Report, RequestParams, RequestResult } from '../protocol.ts';

/** Conversations tokenised at a time. */
const batchRows = 2000;

export async function measureRows(
  { rows, out, tokenizer: { path, tokens }, template, seqLen, threads }: RequestParams<'measureRows'>,
  loadAddon: AddonLoader,
  report: Report,
  cancelled: AbortSignal,
): Promise<RequestResult<'measureRows'>> {
  const partial = `${out}.partial`;
  await mkdir(dirname(out), { recursive: true });
  const tokenizer = await loadAddon().openTokenizer(path);
  const database = await openDatabase('', '256MB');
  try {
    const { connection } = database;
    const file = `read_parquet(${sqlString(rows)}, file_row_number = true)`;
    const [{ n: total } = { n: 0 }] = await select<{ n: number }>(
      connection,
      `SELECT count(*) AS n FROM ${file}`,
    );
    await connection.run(
      'CREATE TABLE measures (key BIGINT, tokens INTEGER, "targetTokens" INTEGER, fate VARCHAR)',
    );
    const measures = await connection.createAppender('measures');
    let done = 0;
    const measure = async (batch: string[]) => {
      const conversations = batch.map((json) =>
        renderTemplate(template, JSON.parse(json) as Message[], tokens, renderJinja),
      );
      for (const { ids, targets } of await encodeConversations(tokenizer, conversations, threads)) {
        measures.appendBigInt(BigInt(done++));
        measures.appendInteger(ids.length);
        const { trained, fate } = fateOf(targets, seqLen);
        measures.appendInteger(trained);
        measures.appendVarchar(fate);
        measures.endRow();
      }
      report({ done, total, unit: 'rows', stage: 'tokenising' });
    };
    // In the order of the file: the number of a row is its key.
    const stream = await connection.stream(`SELECT messages FROM ${file}`);
    let batch: string[] = [];
    for await (const chunk of stream.yieldRowsJs()) {
      for (const [messages] of chunk) batch.push(messages as string);
      if (cancelled.aborted) throw new CaravanError('cancelled', 'measuring the rows was cancelled');
      if (batch.length < batchRows) continue;
      await measure(batch);
      batch = [];
    }
    if (batch.length > 0) await measure(batch);
    measures.closeSync();
    await connection.run(
      `COPY (SELECT * FROM measures ORDER BY key) TO ${sqlString(partial)} (FORMAT parquet, COMPRESSION zstd)`,
    );
    await rename(partial, out);
    return { rows: total };
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  } finally {
    database.close();
    tokenizer.dispose();
  }
}

/** As a mix decides: the first token of a row is never predicted, so it cannot be the only target. */
export function fateOf(targets: Uint8Array, seqLen: number): { trained: number; fate: Fate } {
  const length = Math.min(targets.length, seqLen);
  let trained = 0;
  for (let i = 0; i < length; i++) trained += targets[i]!;
  if (trained - (targets[0] ?? 0) <= 0) return { trained: 0, fate: 'untrained' };
  return { trained, fate: targets.length > seqLen ? 'cut' : 'whole' };
}
