import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needs, testData } from '../../tests/support/skip.ts';
import { demoTokenizer } from '../../tests/support/tinyModel.ts';
import type { AddonTokenizer } from './AddonTypes.ts';
import { loadAddon } from './loadAddon.ts';

const recorded = ['llama-2', 'llama-3', 'qwen2'] as const;

describe.runIf(needs('addon'))('the addon tokenizes', () => {
  let tokenizer: AddonTokenizer;
  const folder = mkdtempSync(join(tmpdir(), 'caravan-tokenizer-'));
  beforeAll(async () => {
    tokenizer = await loadAddon().openTokenizer(demoTokenizer);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test('text to ids and back, one by one and in batches', async () => {
    const texts = ['What is 12 + 30?', '', 'Ünïcode \u{1F600}', 'two\nlines'];
    const batch = await tokenizer.encodeBatch(texts, { threads: 2 });
    expect(batch.offsets).toHaveLength(texts.length + 1);
    for (const [index, text] of texts.entries()) {
      const ids = tokenizer.encode(text);
      expect(tokenizer.decode(ids)).toBe(text);
      expect(tokenizer.decode([...ids])).toBe(text);
      expect(batch.ids.slice(batch.offsets[index], batch.offsets[index + 1])).toEqual(ids);
    }
  });

  test('a special token only where it is asked for', () => {
    const eos = tokenizer.idToToken(1)!;
    expect(tokenizer.isSpecial(1)).toBe(true);
    expect(tokenizer.tokenToId(eos)).toBe(1);
    expect(tokenizer.encode(`a${eos}`)).not.toContain(1);
    expect(tokenizer.encode(`a${eos}`, { parseSpecial: true })).toContain(1);
    expect(tokenizer.decode([1], { skipSpecial: true })).toBe('');
    expect(tokenizer.tokenToId('no such token')).toBeNull();
    expect(tokenizer.idToToken(1_000_000)).toBeNull();
  });

  test('refuses lone surrogates and takes pairs and U+FFFD', async () => {
    for (const text of ['a\uD800', '\uDC00', '\uD800\uD800', 'x\uFFFD\uDBFF'])
      expect(() => tokenizer.encode(text)).toThrow(expect.objectContaining({ code: 'invalid_utf8' }));
    await expect(tokenizer.encodeBatch(['fine', 'b\uDFFF'])).rejects.toMatchObject({
      code: 'invalid_utf8',
      message: expect.stringContaining('texts[1]') as string,
    });
    expect(tokenizer.decode(tokenizer.encode('\uFFFD\u{1F600}'))).toBe('\uFFFD\u{1F600}');
  });

  test('refuses options and arguments by name', async () => {
    const bad = (field: string) =>
      expect.objectContaining({ code: 'bad_option', message: expect.stringContaining(field) as string });
    expect(() => tokenizer.encode(1 as never)).toThrow(bad('text'));
    expect(() => tokenizer.encode('a', { parsespecial: true } as never)).toThrow(bad('parsespecial'));
    expect(() => tokenizer.encode('a', { parseSpecial: 1 } as never)).toThrow(bad('parseSpecial'));
    expect(() => tokenizer.decode('abc' as never)).toThrow(bad('ids'));
    expect(() => tokenizer.decode([1, 'x'] as never)).toThrow(bad('ids[1]'));
    await expect(tokenizer.encodeBatch('abc' as never)).rejects.toEqual(bad('texts'));
    await expect(tokenizer.encodeBatch(['a'], { threads: -1 })).rejects.toEqual(bad('threads'));
    await expect(loadAddon().openTokenizer(undefined as never)).rejects.toEqual(bad('path'));
  });

  test('names the field of a wrong file', async () => {
    const path = join(folder, 'tokenizer.json');
    const json = JSON.parse(readFileSync(demoTokenizer, 'utf8')) as { model: { type: string } };
    json.model.type = 'Unigram';
    writeFileSync(path, JSON.stringify(json));
    await expect(loadAddon().openTokenizer(path)).rejects.toMatchObject({
      code: 'tokenizer_invalid',
      message: expect.stringContaining('model') as string,
    });
    await expect(loadAddon().openTokenizer(join(folder, 'absent.json'))).rejects.toMatchObject({
      code: 'tokenizer_invalid',
    });
  });

  test('is disposed twice without harm, and then says so', async () => {
    const other = await loadAddon().openTokenizer(demoTokenizer);
    const underWay = other.encodeBatch(Array.from({ length: 2000 }, (_, i) => `line ${i}`));
    other.dispose();
    other.dispose();
    const disposed = expect.objectContaining({ code: 'wrong_state' });
    expect(() => other.encode('a')).toThrow(disposed);
    expect(() => other.vocabSize).toThrow(disposed);
    await expect(other.encodeBatch(['a'])).rejects.toEqual(disposed);
    expect((await underWay).offsets).toHaveLength(2001);
  });

  test('cannot be made or called around its factory', () => {
    const Class = tokenizer.constructor as new () => AddonTokenizer;
    expect(() => new Class()).toThrow('openTokenizer');
    expect(() => tokenizer.encode.call({} as AddonTokenizer, 'a')).toThrow(TypeError);
  });

  test.runIf(needs('data')).each(recorded)(
    'equals every recorded line of %s',
    async (name) => {
      const lines = gunzipSync(readFileSync(testData('data/tokenizer-lines.jsonl.gz')))
        .toString('utf8')
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as { text: string; ids: Record<string, number[]> });
      expect(lines).toHaveLength(4000);
      const path = join(folder, `${name}.json`);
      writeFileSync(path, gunzipSync(readFileSync(testData(`models/tokenizers/${name}.tokenizer.json.gz`))));
      const opened = await loadAddon().openTokenizer(path);
      const { ids, offsets } = await opened.encodeBatch(lines.map((line) => line.text));
      const differing = lines.filter((line, index) => {
        const expected = line.ids[name]!;
        const got = ids.subarray(offsets[index], offsets[index + 1]);
        return got.length !== expected.length || expected.some((id, at) => got[at] !== id);
      });
      expect(differing).toEqual([]);
      opened.dispose();
    },
    120_000,
  );
});
