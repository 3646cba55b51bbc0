/** One row, whole: its messages, what a model would see of it, and the line of the file that it came from. */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import type { AddonTokenizer } from '../../engine/AddonTypes.ts';
import { encodeConversations } from '../../prompt/encodeConversations.ts';
import { renderJinja } from '../../prompt/renderJinja.ts';
import { spellTokens } from '../../prompt/spellTokens.ts';
import type { RenderedRow } from '../../shared/dataset/look.ts';
import type { Message } from '../../shared/dataset/source.ts';
import { renderTemplate } from '../../shared/dataset/template.ts';
import { openDatabase, select, sqlString } from '../database.ts';
import { readRow as readFormat } from '../formats/formats.ts';
import { columnsOfInterest } from '../formats/guessFormat.ts';
import { kindOf, readHead } from '../formats/openText.ts';
import { lineEnd } from '../formats/rawRow.ts';
import { readRawRows } from '../formats/rawRows.ts';
import type { RequestParams, RequestResult } from '../protocol.ts';
import { fateOf } from './measureRows.ts';
import { readIndexRow } from './openLook.ts';

/** Tokens listed one by one; the rest is counted. */
const maxListed = 16_384;
/** Characters shown of one raw row. */
const maxRawChars = 200_000;

export async function readRow({ files, key }: RequestParams<'readRow'>): Promise<RequestResult<'readRow'>> {
  const found = await readIndexRow(files, key);
  const database = await openDatabase('', '512MB');
  try {
    const where =
      files.kind === 'mix'
        ? `split = ${sqlString(found.row.split!)} AND "row" = ${found.row.row}`
        : `"row" = ${key}`;
    const [{ messages } = { messages: '[]' }] = await select<{ messages: string }>(
      database.connection,
      `SELECT messages FROM read_parquet(${sqlString(files.rows)}) WHERE ${where}`,
    );
    return { ...found, messages: JSON.parse(messages) as Message[] };
  } finally {
    database.close();
  }
}

export async function renderRow(
  { messages, tokenizer: { tokens }, template, seqLen }: RequestParams<'renderRow'>,
  tokenizer: AddonTokenizer,
): Promise<RenderedRow> {
  const pieces = renderTemplate(template, messages, tokens, renderJinja);
  const [encoded] = await encodeConversations(tokenizer, [pieces], 1);
  const { ids, targets } = encoded!;
  const { trained, fate } = fateOf(targets, seqLen);
  const cut = Math.max(0, ids.length - seqLen);
  return {
    pieces: pieces.map((piece) =>
      piece.kind === 'text'
        ? { text: piece.text, target: piece.target, special: false }
        : { text: piece.token, target: piece.target, special: true },
    ),
    tokens: listTokens(tokenizer, ids.subarray(0, maxListed), targets, seqLen),
    counts: { tokens: ids.length, trained, masked: ids.length - cut - trained, cut },
    fate,
    unlisted: Math.max(0, ids.length - maxListed),
  };
}

function listTokens(
  tokenizer: AddonTokenizer,
  ids: Int32Array,
  targets: Uint8Array,
  seqLen: number,
): RenderedRow['tokens'] {
  const mayJoin = (place: number, first: number) => targets[place] === targets[first] && place !== seqLen;
  return spellTokens(tokenizer, ids, mayJoin).map(({ from, to, text, special }) => ({
    ids: [...ids.subarray(from, to)],
    text,
    special,
    state: from >= seqLen ? 'cut' : targets[from] === 1 ? 'trained' : 'masked',
  }));
}

export async function readRawRow({
  file,
  line,
  format,
  mapping,
  messages,
}: RequestParams<'readRawRow'>): Promise<RequestResult<'readRawRow'>> {
  const missing = (problem: string) => ({ text: null, unchanged: null, problem });
  const info = await stat(file).catch(() => null);
  if (!info?.isFile()) return missing('the file is no longer there');
  const known = format === 'auto' ? 'messages' : format;
  const same = (value: unknown) => {
    const read = readFormat(value, known, mapping);
    return 'row' in read && JSON.stringify(read.row.messages) === JSON.stringify(messages);
  };
  const quick = await readLine(file, line);
  if (quick !== null) {
    const value = parse(quick);
    if (value !== undefined && same(value)) return { text: clip(quick), unchanged: true, problem: null };
  }
  for await (const row of readRawRows(file, { columns: columnsOfInterest(mapping), bytes: info.size })) {
    if (row.line !== line) {
      if (row.line > line) break;
      continue;
    }
    if ('problem' in row.content)
      return { text: null, unchanged: false, problem: row.content.problem.detail };
    return {
      text: clip(JSON.stringify(row.content.value, null, 2)),
      unchanged: same(row.content.value),
      problem: null,
    };
  }
  return missing(`the file has no row ${line} any more`);
}

function clip(text: string): string {
  return text.length > maxRawChars ? `${text.slice(0, maxRawChars)}…`.toWellFormed() : text;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** A line of a plain JSONL file, found by counting ends of lines alone; null where the file is of another kind. */
async function readLine(file: string, line: number): Promise<string | null> {
  if (!/\.(jsonl|ndjson)$/i.test(file)) return null;
  const head = await readHead(file, 65_536);
  if (kindOf(head) !== 'text' || lineEnd(head) !== 0x0a) return null;
  let at = 1;
  const parts: Buffer[] = [];
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    let from = 0;
    while (at < line) {
      const end = chunk.indexOf(0x0a, from);
      if (end < 0) break;
      at++;
      from = end + 1;
    }
    if (at < line) continue;
    const end = chunk.indexOf(0x0a, from);
    parts.push(chunk.subarray(from, end < 0 ? undefined : end));
    if (end >= 0) break;
  }
  return at === line ? Buffer.concat(parts).toString('utf8').replace(/\r$/, '') : null;
}
