/** What leaves a mix for other programs comes back the same, and two versions of a mix tell what changed. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { memoryLimit, openTestData } from '../../tests/support/dataProcess.ts';
import { differences, type MixExportFormat } from '../shared/dataset/mixExport.ts';
import { recipeSchema, type Recipe } from '../shared/dataset/recipe.ts';
import type { Message } from '../shared/dataset/source.ts';

const opened = openTestData('export');
const { dir, data, importFile } = opened;
afterAll(opened.close);

const user = (content: string): Message => ({ role: 'user', content });
const assistant = (content: string, train?: false): Message => ({
  role: 'assistant',
  content,
  ...(train === false && { train }),
});
const conversations: Message[][] = [
  [user('a?'), assistant('a.')],
  [{ role: 'system', content: 'Be brief.' }, user('b "quoted"?'), assistant('b\nb.')],
  [user('c?'), assistant('c.'), user('More?'), assistant('Enough 🐪.')],
  [user('d?'), assistant('not this', false), user('But?'), assistant('this')],
  ...Array.from({ length: 20 }, (_, i) => [user(`Number ${i}?`), assistant(`It is ${i}.`)]),
];

async function build(name: string, rows: Message[][], more: Partial<Recipe> & Record<string, unknown> = {}) {
  const file = join(dir, `${name}.jsonl`);
  // As ShareGPT has them: weight 0 is context.
  const from = { system: 'system', user: 'human', assistant: 'gpt' };
  writeFileSync(
    file,
    rows
      .map(
        (messages) =>
          `${JSON.stringify({ conversations: messages.map(({ role, content, train }) => ({ from: from[role], value: content, ...(train === false && { weight: 0 }) })) })}\n`,
      )
      .join(''),
  );
  const outDir = join(dir, `${name}.mix`);
  const recipe = recipeSchema.parse({
    name,
    sources: [{ name: 'talk', source: 'talk' }],
    validation: { perSource: 3 },
    ...more,
  });
  const request = {
    recipe,
    sources: [await importFile(file, join(dir, `${name}.source`))],
    benchmarks: [],
    tokenizer: null,
    outDir,
    memoryLimit,
    threads: 1,
  };
  const result = await data.request('buildMix', request);
  return { ...result, name, dir: outDir, model: null, template: null, seqLen: null, recipe };
}

async function messagesOf(mixDir: string): Promise<string[]> {
  const read = (split: 'train' | 'validation') =>
    data.request('readMixRows', { dir: mixDir, split, after: -1, limit: 100 });
  return [...(await read('train')), ...(await read('validation'))].map(({ messages }) =>
    JSON.stringify(messages),
  );
}

describe('an export', () => {
  test.each<[MixExportFormat, string, number]>([
    ['messages', 'jsonl', 0],
    ['sharegpt', 'jsonl', 0],
    ['alpaca', 'jsonl', 1],
    ['reference', 'json', 1],
    ['parquet', 'parquet', 0],
  ])(
    'as %s, imported again, has the same conversations in the same order',
    async (format, extension, lost) => {
      const mix = await build(`out-${format}`, conversations);
      const outDir = join(dir, `exported-${format}`);
      const { files, leftOut } = await data.request('exportMix', { mix, format, outDir });
      expect(files.map(({ name }) => name)).toEqual([`train.${extension}`, `validation.${extension}`]);
      expect(files.reduce((sum, { rows }) => sum + rows, 0)).toBe(conversations.length - lost);
      expect(Object.values(leftOut)).toEqual(lost === 0 ? [] : [lost]);
      const back: string[] = [];
      for (const { name } of files) {
        const source = await importFile(join(outDir, name), join(dir, `back-${format}-${name}`));
        const rows = await data.request('readSourceRows', { dir: source.dir, after: -1, limit: 100 });
        back.push(...rows.map(({ messages }) => JSON.stringify(messages)));
      }
      const wanted = await messagesOf(mix.dir);
      // Parquet's own columns hold `train` under that name, which no format of import reads.
      const comparable =
        format === 'parquet' ? wanted.map((text) => text.replace(',"train":false', '')) : wanted;
      expect(back).toEqual(comparable.filter((text) => lost === 0 || !text.includes('"train":false')));
    },
  );

  test('brings a card that says what it is made of, and a recipe that builds it again', async () => {
    const mix = await build('card', conversations);
    const outDir = join(dir, 'exported-card');
    await data.request('exportMix', { mix, format: 'messages', outDir });
    const card = readFileSync(join(outDir, 'README.md'), 'utf8');
    expect(card).toMatch(/^---\nconfigs:\n {2}- config_name: default\n/);
    expect(card).toContain('| talk | 24 | 21 | 3 | none |');
    expect(card).toContain(mix.contentHash);
    const { parse } = await import('yaml');
    expect(recipeSchema.parse(parse(readFileSync(join(outDir, 'recipe.yaml'), 'utf8')))).toEqual(mix.recipe);
  });
});

test('every row of a mix names the line that it comes from', async () => {
  const mix = await build('lineage', conversations);
  const rows = await data.request('readMixRowsAt', { dir: mix.dir, split: 'train', rows: [0, 5, 11] });
  const lines = readFileSync(join(dir, 'lineage.jsonl'), 'utf8').split('\n');
  const source = await data.request('readSourceRows', {
    dir: join(dir, 'lineage.source'),
    after: -1,
    limit: 100,
  });
  for (const { sourceRow, file, line, hash, messages } of rows) {
    expect(file).toBe('lineage.jsonl');
    expect(lines[line - 1]).toContain(JSON.stringify(messages.at(-1)!.content));
    expect(source[sourceRow]).toMatchObject({ line, hash, messages });
  }
});

test('two versions tell what changed: rows by source, and fields of the recipe', async () => {
  const one = await build('v1', conversations);
  const two = await build('v2', [...conversations.slice(2), [user('new?'), assistant('new.')]], { seed: 1 });
  const { sources, added, removed } = await data.request('compareMixes', { from: one.dir, to: two.dir });
  expect(sources).toMatchObject([{ name: 'talk', both: 22, added: 1, removed: 2 }]);
  expect(added.map(({ messages, file, line }) => [messages[0]!.content, file, line])).toEqual([
    ['new?', 'v2.jsonl', 23],
  ]);
  expect(removed.map(({ messages }) => messages[0]!.content).sort()).toEqual(['Be brief.', 'a?']);
  expect(differences(one.recipe, two.recipe)).toEqual([
    { field: 'name', from: 'v1', to: 'v2' },
    { field: 'seed', from: 0, to: 1 },
  ]);
  expect(differences({ a: [1, { b: 2 }] }, { a: [1, { b: 3 }, 4] })).toEqual([
    { field: 'a[1].b', from: 2, to: 3 },
    { field: 'a[2]', from: null, to: 4 },
  ]);
});
