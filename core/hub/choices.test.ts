import { describe, expect, test } from 'vitest';
import { formatHubReference, parseHubReference, type HubKind } from '../shared/hub/hubReference.ts';
import { pathProblem } from './checkPath.ts';
import { chooseFiles, patternTest, splitOf } from './chooseFiles.ts';
import { mayGoTo, parseEndpoint } from './redirectRules.ts';

describe('a reference', () => {
  test.each([
    ['hub:ada/tiny', { id: 'ada/tiny', revision: 'main', files: null }],
    ['hub:ada/tiny@v1.0', { id: 'ada/tiny', revision: 'v1.0', files: null }],
    ['hub:gpt2', { id: 'gpt2', revision: 'main', files: null }],
    ['hub:a/b@refs/pr/1:main/*.parquet', { id: 'a/b', revision: 'refs/pr/1', files: 'main/*.parquet' }],
    ['hub:a/b:x-Q4_K_M.gguf', { id: 'a/b', revision: 'main', files: 'x-Q4_K_M.gguf' }],
  ])('%s', (text, expected) => {
    expect(parseHubReference(text)).toEqual(expected);
    expect(formatHubReference(parseHubReference(text))).toBe(text);
  });

  test.each([
    'hub:',
    'hub:a/b/c',
    'hub:../x',
    'hub:a/..',
    'hub:a/b@',
    'hub:a/b@..',
    'hub:a/b@x/../y',
    'hub:a/b:',
    'hub:a b/c',
    'hub:a/b?x=1',
    'hub:a/b#x',
    'hub:a--b/c',
    'hub:a/b@x y',
  ])('%s is none', (text) => {
    expect(() => parseHubReference(text)).toThrow(expect.objectContaining({ code: 'bad_option' }));
  });
});

function choose(kind: HubKind, reference: string, paths: string[]): string[] {
  return chooseFiles(
    kind,
    parseHubReference(reference),
    paths.map((path) => ({ path })),
  ).files.map(({ path }) => path);
}

describe('of a model', () => {
  const side = ['config.json', 'tokenizer.json'];

  test('safetensors before .bin, shards by their index', () => {
    const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
    const bin = ['pytorch_model.bin.index.json', 'pytorch_model-00001-of-00001.bin'];
    expect(
      choose('model', 'a/b', [
        ...side,
        ...bin,
        'model.safetensors.index.json',
        ...shards,
        'consolidated.safetensors',
      ]),
    ).toEqual([...side, 'model.safetensors.index.json', ...shards]);
    expect(choose('model', 'a/b', [...side, ...bin])).toEqual([...side, ...bin]);
    expect(choose('model', 'a/b', [...side, 'pytorch_model.bin', 'tf_model.h5'])).toEqual([
      ...side,
      'pytorch_model.bin',
    ]);
  });

  test('one GGUF file, or the one that is named', () => {
    expect(choose('model', 'a/b', ['x.gguf', 'README.md'])).toEqual(['x.gguf']);
    expect(choose('model', 'a/b:y.gguf', ['x.gguf', 'y.gguf'])).toEqual(['y.gguf']);
    expect(() => choose('model', 'a/b', ['x.gguf', 'y.gguf'])).toThrow(/2 GGUF files/);
    expect(() => choose('model', 'a/b:*.gguf', ['x.gguf', 'y.gguf'])).toThrow(/one GGUF file/);
  });

  test('what lacks a part is refused before anything is downloaded', () => {
    expect(() => choose('model', 'a/b', ['config.json', 'model.safetensors'])).toThrow(/no tokenizer.json/);
    expect(() => choose('model', 'a/b', ['README.md'])).toThrow(/no weights/);
  });
});

describe('of a dataset', () => {
  test('the training split, in the best of the kinds', () => {
    expect(
      choose('dataset', 'a/b', [
        'data/train-00000-of-00002.parquet',
        'data/train-00001-of-00002.parquet',
        'data/test-00000-of-00001.parquet',
        'rows.jsonl',
      ]),
    ).toEqual(['data/train-00000-of-00002.parquet', 'data/train-00001-of-00002.parquet']);
    expect(choose('dataset', 'a/b', ['x.csv', 'rows.jsonl.gz', 'dataset_infos.json'])).toEqual([
      'rows.jsonl.gz',
    ]);
    expect(choose('dataset', 'a/b', ['MetaMathQA-395K.json', 'README.md'])).toEqual(['MetaMathQA-395K.json']);
  });

  test('several folders or no training split are asked about', () => {
    expect(() => choose('dataset', 'a/b', ['main/train.parquet', 'socratic/train.parquet'])).toThrow(
      /2 folders/,
    );
    expect(choose('dataset', 'a/b:main/train*', ['main/train.parquet', 'socratic/train.parquet'])).toEqual([
      'main/train.parquet',
    ]);
    expect(choose('dataset', 'a/b:**', ['main/train.parquet', 'x.parquet'])).toHaveLength(2);
    expect(() => choose('dataset', 'a/b', ['test.jsonl'])).toThrow(/no training split/);
    expect(() => choose('dataset', 'a/b', ['a.txt'])).toThrow(/no Parquet/);
  });

  test.each([
    ['data/train-0.parquet', 'train'],
    ['x_test.json', 'test'],
    ['validation/x.csv', 'validation'],
    ['training/test.csv', 'test'],
    ['latest.jsonl', null],
    ['constrained.jsonl', null],
  ])('%s is %s', (path, split) => expect(splitOf(path)).toBe(split));

  test.each([
    ['*.json', 'a.json', true],
    ['*.json', 'x/a.json', false],
    ['**/*.json', 'x/y/a.json', true],
    ['**/*.json', 'a.json', true],
    ['x/', 'x/y/a', true],
    ['a+b.json', 'aab.json', false],
  ])('the pattern %s against %s: %s', (pattern, path, is) => expect(patternTest(pattern)(path)).toBe(is));
});

test.each([
  ['https://huggingface.co', 'https://cdn-lfs.huggingface.co/x', true],
  ['https://huggingface.co', 'https://cas-bridge.xethub.hf.co/x', true],
  ['https://huggingface.co', 'http://cdn-lfs.huggingface.co/x', false],
  ['https://huggingface.co', 'https://huggingface.co.evil.example/x', false],
  ['https://huggingface.co', 'https://evilhf.co/x', false],
  ['https://huggingface.co', 'http://127.0.0.1/x', false],
  ['https://huggingface.co', 'https://169.254.169.254/x', false],
  ['https://mirror.example', 'https://mirror.example:8443/x', true],
  ['http://127.0.0.1:1', 'http://127.0.0.1:2/x', true],
  ['http://127.0.0.1:1', 'ftp://127.0.0.1:2/x', false],
  ['http://127.0.0.1:1', 'http://10.0.0.1/x', false],
])('from %s to %s: %s', (endpoint, target, may) => {
  expect(mayGoTo(parseEndpoint(endpoint), new URL(target))).toBe(may);
});

test.each(['ftp://x', 'huggingface.co', 'https://user:pw@hub', 'https://hub?x'])(
  '%s is no endpoint',
  (text) => {
    expect(() => parseEndpoint(text)).toThrow(/HF_ENDPOINT/);
  },
);

test.each(['a/b.json', 'ünï/c d.parquet'])('%s is a path', (path) => expect(pathProblem(path)).toBeNull());
