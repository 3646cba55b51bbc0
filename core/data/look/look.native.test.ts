import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needs } from '../../../tests/support/skip.ts';
import { writeTinyModel } from '../../../tests/support/tinyModel.ts';
import type { AddonTokenizer } from '../../engine/AddonTypes.ts';
import { loadAddon } from '../../engine/loadAddon.ts';
import { lookQuerySchema } from '../../shared/dataset/look.ts';
import type { Message } from '../../shared/dataset/source.ts';
import { importSource } from '../importSource.ts';
import { describeLook } from './describeLook.ts';
import type { LookFiles } from './lookProtocol.ts';
import { measureRows } from './measureRows.ts';
import { countLook, readLook } from './openLook.ts';
import { prepareLook } from './prepareLook.ts';
import { renderRow } from './readRow.ts';
import { readTokenizer } from '../readTokenizer.ts';

describe.runIf(needs('addon'))('rows under a tokenizer', () => {
  const folder = mkdtempSync(join(tmpdir(), 'measure-'));
  const never = new AbortController().signal;
  const seqLen = 64;
  let tokenizer: AddonTokenizer;
  let yardstick: Parameters<typeof renderRow>[0];

  beforeAll(async () => {
    writeTinyModel(join(folder, 'tiny'));
    const path = join(folder, 'tiny', 'tokenizer.json');
    const { tokens } = await readTokenizer({ dir: join(folder, 'tiny') }, loadAddon);
    tokenizer = await loadAddon().openTokenizer(path);
    yardstick = { messages: [], tokenizer: { path, tokens }, template: 'camelidae', seqLen };
  });
  afterAll(() => tokenizer.dispose());

  const talk = (question: string, answer: string): Message[] => [
    { role: 'user', content: question },
    { role: 'assistant', content: answer },
  ];

  test('tokens give the rendered prompt back, each trained, masked or cut', async () => {
    const messages = talk('Wie groß ist ein 🐪?', 'Über zwei Meter, « sagt man » 駱駝.');
    const { pieces, tokens, counts, fate } = await renderRow(
      { ...yardstick, messages, seqLen: 4096 },
      tokenizer,
    );
    expect(tokens.map(({ text }) => text).join('')).toBe(pieces.map(({ text }) => text).join(''));
    const trained = tokens.filter(({ state }) => state === 'trained');
    expect(trained.map(({ text }) => text).join('')).toBe(
      `${messages[1]!.content}${yardstick.tokenizer.tokens.eos}`,
    );
    expect(counts.trained).toBe(trained.reduce((sum, { ids }) => sum + ids.length, 0));
    expect(counts.cut).toBe(0);
    expect(counts.trained + counts.masked).toBe(counts.tokens);
    expect(fate).toBe('whole');
  });

  test('beyond the length tokens are cut; an answer that lies there whole trains nothing', async () => {
    const cut = await renderRow({ ...yardstick, messages: talk('Count.', 'one two '.repeat(40)) }, tokenizer);
    expect(cut.fate).toBe('cut');
    expect(cut.counts.tokens).toBe(cut.counts.cut + seqLen);
    expect(
      cut.tokens.filter(({ state }) => state !== 'cut').reduce((sum, { ids }) => sum + ids.length, 0),
    ).toBe(seqLen);
    const lost = await renderRow({ ...yardstick, messages: talk('why '.repeat(60), 'So.') }, tokenizer);
    expect(lost.fate).toBe('untrained');
    expect(lost.counts.trained).toBe(0);
  });

  test('a measure says of every row what its view says', async () => {
    const rows = [
      talk('Short?', 'Yes.'),
      talk('Count.', 'one two '.repeat(40)),
      talk('why '.repeat(60), 'So.'),
      talk('Short?', 'Yes.'),
    ];
    writeFileSync(
      join(folder, 'rows.jsonl'),
      rows.map((messages) => `${JSON.stringify({ messages })}\n`).join(''),
    );
    const outDir = join(folder, 'source');
    await importSource(
      { files: [join(folder, 'rows.jsonl')], format: 'auto', outDir, memoryLimit: '192MB' },
      () => undefined,
      never,
    );
    const files: LookFiles = {
      kind: 'source',
      rows: join(outDir, 'rows.parquet'),
      rejects: join(outDir, 'rejects.parquet'),
      index: join(folder, 'index.duckdb'),
      measures: join(folder, 'measures.parquet'),
    };
    const { messages: _none, ...with_ } = yardstick;
    await prepareLook({ ...files, out: files.index }, () => undefined, never);
    await measureRows(
      { rows: files.rows, out: files.measures!, threads: 1, ...with_ },
      loadAddon,
      () => undefined,
      never,
    );
    const window = await readLook({ files, query: lookQuerySchema.parse({}), from: 0, count: 10 });
    const views = await Promise.all(rows.map((messages) => renderRow({ ...yardstick, messages }, tokenizer)));
    expect(window.rows.map(({ tokens, targetTokens, fate }) => [tokens, targetTokens, fate])).toEqual(
      views.map(({ counts, fate }) => [counts.tokens, counts.trained, fate]),
    );
    expect(window.rows.map(({ fate }) => fate)).toEqual(['whole', 'cut', 'untrained', 'whole']);
    const query = lookQuerySchema.parse({
      filters: [{ kind: 'oneOf', column: 'fate', values: ['cut', 'untrained'] }],
      sort: { column: 'tokens', descending: true },
    });
    const watched = { onShare: () => undefined, cancelled: never };
    expect(await countLook({ files, query }, watched)).toEqual({ total: 2 });
    const { all } = await describeLook({ files });
    expect(all.fates).toEqual({ whole: 2, cut: 1, untrained: 1 });
    expect(all.tokens!.sum).toBe(views.reduce((sum, { counts }) => sum + counts.tokens, 0));
  });
});
