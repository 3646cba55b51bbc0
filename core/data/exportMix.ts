/** Writes a mix for other programs: its rows in a format that they know, a dataset card, and the recipe. */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { CaravanError } from '../shared/contract/errors.ts';
import type { MixExport, MixExportFormat } from '../shared/dataset/mixExport.ts';
import type { Message } from '../shared/dataset/source.ts';
import { openDatabase, select, sqlString, type Database } from './database.ts';
import { datasetCard } from './datasetCard.ts';
import type { Report, RequestParams } from './protocol.ts';

export async function exportMix(
  { mix, format, outDir }: RequestParams<'exportMix'>,
  report: Report,
  cancelled: AbortSignal,
): Promise<MixExport> {
  const scratch = `${outDir}.partial`;
  await rm(scratch, { recursive: true, force: true });
  await mkdir(scratch, { recursive: true });
  const database = await openDatabase(join(scratch, 'spill'), '512MB');
  try {
    const files: MixExport['files'] = [];
    const leftOut: MixExport['leftOut'] = {};
    let done = 0;
    for (const split of ['train', 'validation'] as const) {
      const total = mix[split === 'train' ? 'rows' : 'validationRows'];
      if (total === 0) continue;
      const name = `${split}.${format === 'parquet' ? 'parquet' : format === 'reference' ? 'json' : 'jsonl'}`;
      const path = join(scratch, name);
      const table = `read_parquet(${sqlString(join(mix.dir, 'mix.parquet'))}) WHERE split = '${split}' ORDER BY "row"`;
      const rows =
        format === 'parquet'
          ? await writeParquet(database, table, path)
          : await writeJson(database, table, path, format, leftOut, () => {
              if (cancelled.aborted) throw new CaravanError('cancelled', 'the export was cancelled');
              report({ done: ++done, total: mix.rows + mix.validationRows, unit: 'rows', stage: 'writing' });
            });
      files.push({ name, split, rows, bytes: (await stat(path)).size });
    }
    const recipe = stringify(mix.recipe, { lineWidth: 110 });
    await writeFile(join(scratch, 'recipe.yaml'), recipe);
    await writeFile(join(scratch, 'README.md'), datasetCard(mix, format, files, leftOut, recipe));
    database.close();
    await rm(join(scratch, 'spill'), { recursive: true, force: true });
    await rm(outDir, { recursive: true, force: true });
    await rename(scratch, outDir);
    return { dir: outDir, format, files, leftOut };
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    throw error;
  }
}

async function writeParquet({ connection }: Database, table: string, path: string): Promise<number> {
  await connection.run(`COPY (SELECT from_json(messages, '[{"role":"VARCHAR","content":"VARCHAR","train":"BOOLEAN"}]') AS messages,
      source, label, source_row, file, line, hash, tokens, target_tokens FROM ${table})
    TO ${sqlString(path)} (FORMAT parquet, COMPRESSION zstd)`);
  const [count] = await select<{ n: number }>(
    connection,
    `SELECT count(*) AS n FROM read_parquet(${sqlString(path)})`,
  );
  return count!.n;
}

/** @param wrote is told of every row that was looked at */
async function writeJson(
  { connection }: Database,
  table: string,
  path: string,
  format: Exclude<MixExportFormat, 'parquet'>,
  leftOut: MixExport['leftOut'],
  wrote: () => void,
): Promise<number> {
  const file = createWriteStream(path, { highWaterMark: 1 << 20 });
  const failed = once(file, 'error').then(([error]) => Promise.reject(error as Error));
  failed.catch(() => {});
  const array = format === 'reference';
  let rows = 0;
  const result = await connection.stream(`SELECT source, label, messages FROM ${table}`);
  for (;;) {
    const chunk = await result.fetchChunk();
    if (!chunk || chunk.rowCount === 0) break;
    const [names, labels, texts] = [0, 1, 2].map((column) => chunk.getColumnValues(column) as string[]);
    let piece = '';
    for (const [at, text] of texts!.entries()) {
      wrote();
      const row = rowOf(format, JSON.parse(text) as Message[], names![at]!, labels![at]!);
      if (typeof row === 'string') leftOut[row] = (leftOut[row] ?? 0) + 1;
      else piece += `${array ? (rows === 0 ? '[\n' : ',\n') : rows === 0 ? '' : '\n'}${JSON.stringify(row)}`;
      if (typeof row !== 'string') rows++;
    }
    if (!file.write(piece)) await Promise.race([once(file, 'drain'), failed]);
  }
  file.end(array ? (rows === 0 ? '[]\n' : '\n]\n') : '\n');
  await Promise.race([once(file, 'close'), failed]);
  return rows;
}

/** The row as the format has it, or why it has none. What is written can be imported again. */
function rowOf(
  format: Exclude<MixExportFormat, 'parquet'>,
  messages: readonly Message[],
  source: string,
  label: string,
): object | string {
  const weight = ({ train }: Message) => (train === false ? { weight: 0 } : {});
  if (format === 'messages')
    return {
      messages: messages.map((one) => ({ role: one.role, content: one.content, ...weight(one) })),
      source,
      label,
    };
  if (format === 'sharegpt') {
    const from = { system: 'system', user: 'human', assistant: 'gpt' };
    return {
      conversations: messages.map((one) => ({ from: from[one.role], value: one.content, ...weight(one) })),
      source,
      label,
    };
  }
  const system = messages[0]?.role === 'system' ? messages[0].content : '';
  const turns = messages.filter(({ role }) => role !== 'system');
  const raw = turns.length === 1;
  const masked = turns.some(({ train }) => train === false);
  if (masked) return `an answer that is no target: ${format} cannot say so`;
  if (format === 'reference')
    return {
      corpus: raw ? turns[0]!.content : '',
      dataset: source,
      instruction: system,
      conversation: raw ? [] : pairs(turns).map(([input, output]) => ({ input, output })),
    };
  if (raw) return 'raw text: Alpaca has no row without an instruction';
  const all = pairs(turns);
  const [instruction, output] = all.at(-1)!;
  const history = all.slice(0, -1);
  return {
    instruction,
    input: '',
    output,
    ...(system !== '' && { system }),
    ...(history.length > 0 && { history }),
  };
}

function pairs(turns: readonly Message[]): [string, string][] {
  return Array.from({ length: turns.length / 2 }, (_, i) => [
    turns[2 * i]!.content,
    turns[2 * i + 1]!.content,
  ]);
}
