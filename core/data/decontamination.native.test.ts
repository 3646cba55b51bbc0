/** Benchmarks against rows that hold them: planted leaks, the real GSM8K and HumanEval, and the schemas of the other ten. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, describe, expect, test } from 'vitest';
import { memoryLimit, openTestData, type ImportedSource } from '../../tests/support/dataProcess.ts';
import { needs, testData } from '../../tests/support/skip.ts';
import { recipeSchema } from '../shared/dataset/recipe.ts';

const opened = openTestData('leaks');
const { dir, data, importRows } = opened;
afterAll(opened.close);

let number = 0;

interface Row {
  question: string;
  answer: string;
}
async function mix(
  rows: object[] | ImportedSource,
  benchmarks: { path: string; [more: string]: unknown }[],
  settings: object = {},
  threads = 2,
) {
  const outDir = join(dir, `mix-${number++}`);
  const result = await data.request('buildMix', {
    recipe: recipeSchema.parse({
      name: 'mix',
      sources: [{ name: 'rows', source: 'rows' }],
      decontaminate: { benchmarks, ...settings },
    }),
    sources: [Array.isArray(rows) ? await importRows(rows) : rows],
    benchmarks: benchmarks.map(({ path }) => [path]),
    tokenizer: null,
    outDir,
    memoryLimit,
    threads,
  });
  const matches = await data.request('readContamination', { dir: outDir, after: -1, limit: 1000 });
  const rejects = await data.request('readMixRejects', {
    dir: outDir,
    after: -1,
    limit: 1000,
    reason: 'contaminated',
  });
  return { outDir, result, matches, rejects };
}

/** Words that no benchmark has. */
const filler = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => `zq${from + i}`).join(' ');
const clean = (i: number): Row => ({
  question: `${filler(i * 100, 30)}?`,
  answer: `${filler(i * 100 + 50, 30)}.`,
});

const small: Record<string, { file: string; text: string; found: Row }> = {
  math: {
    file: 'algebra.jsonl',
    text: JSON.stringify({
      problem:
        'Let $f(x)$ be the polynomial whose zeros are the fourth powers of those of the given one. Find it.',
      level: 'Level 5',
      type: 'Algebra',
      solution:
        'We write the product of the four factors and expand it with care, to find $\\boxed{7}$ in the end.',
    }),
    found: {
      question: 'q',
      answer: 'We write the product of the four factors and expand it with care, to find 7.',
    },
  },
  mbpp: {
    file: 'mbpp.jsonl',
    text: [
      {
        task_id: 11,
        text: 'Write a python function to remove first and last occurrence of a given character from the string.',
        code: 'def remove_Occ(s,ch):\r\n    return s',
        test_list: ['assert remove_Occ("hello","l") == "heo"'],
      },
      {
        task_id: 700,
        text: 'Write a function to count the number of elements of a list that lie within some range.',
        code: 'def count_range(l, a, b): return 1',
        test_list: [],
      },
    ]
      .map((row) => JSON.stringify(row))
      .join('\n'),
    found: {
      question:
        'Write a Python function to remove first and last occurrence of a given character from the string, please.',
      answer: 'x',
    },
  },
  mmlu: {
    file: 'anatomy_test.csv',
    text: '"Which of these nerves carries taste from the front two thirds of the tongue to the brain?",Facial,Vagus,Optic,None,A\nWhat is bone?,A tissue,A gas,A law,A word,A\n',
    found: {
      question: 'Which of these nerves carries taste from the front two thirds of the tongue to the brain',
      answer: 'x',
    },
  },
  hellaswag: {
    file: 'hellaswag_val.jsonl',
    text: JSON.stringify({
      ind: 1,
      activity_label: 'Washing',
      ctx_a: 'A man',
      ctx_b: 'he',
      ctx: 'A man stands at the sink in a kitchen with a pile of plates beside him. he',
      endings: [
        'dries one plate after the other with the towel that hangs over his left shoulder.',
        'b',
        'c',
        'd',
      ],
      source_id: 'x',
      split: 'val',
      split_type: 'indomain',
      label: '0',
    }),
    found: {
      question: 'q',
      answer: 'He dries one plate after the other with the towel that hangs over his left shoulder',
    },
  },
  piqa: {
    file: 'valid.jsonl',
    text: JSON.stringify({
      goal: 'How do I keep the lid of a jar of honey from sticking to it?',
      sol1: 'Rub a little oil on the rim of the jar before you close it each time.',
      sol2: 'Use water.',
      label: 0,
    }),
    found: { question: 'How do I keep the lid of a jar of honey from sticking to it?', answer: 'x' },
  },
  winogrande: {
    file: 'dev.jsonl',
    text: JSON.stringify({
      sentence: 'Sarah was a much better surgeon than Maria so _ always got the easier cases of the day.',
      option1: 'Sarah',
      option2: 'Maria',
      answer: '2',
      qID: '3',
    }),
    found: {
      question: 'Sarah was a much better surgeon than Maria so Maria always got the easier cases of the day.',
      answer: 'x',
    },
  },
  arc: {
    file: 'ARC-Challenge-Test.jsonl',
    text: JSON.stringify({
      id: 'x',
      question:
        'An astronomer observes that a planet rotates faster after a meteorite impact. Which is the most likely effect?',
      choices: {
        text: ['Planetary density will decrease.', 'Planetary days will become shorter.'],
        label: ['A', 'B'],
      },
      answerKey: 'B',
    }),
    found: {
      question:
        'An astronomer observes that a planet rotates faster after a meteorite impact! Which is the most likely effect',
      answer: 'x',
    },
  },
  'arc (original)': {
    file: 'arc-original.jsonl',
    text: JSON.stringify({
      id: 'y',
      question: {
        stem: 'Why do the shadows of trees grow longer toward the end of a sunny day?',
        choices: [
          { text: 'The sun is lower', label: 'A' },
          { text: 'Trees grow', label: 'B' },
        ],
      },
      answerKey: 'A',
    }),
    found: { question: 'Why do the shadows of trees grow longer toward the end of a sunny day', answer: 'x' },
  },
  naturalquestions: {
    file: 'NQ-open.dev.jsonl',
    text: JSON.stringify({
      question: 'when was the last time anyone was on the moon',
      answer: ['14 December 1972 UTC', 'December 1972'],
    }),
    found: { question: 'When was the last time anyone was on the moon?', answer: 'In 1972.' },
  },
  triviaqa: {
    file: 'triviaqa.jsonl',
    text: JSON.stringify({
      question: 'Which Lloyd Webber musical premiered in the US on 10th December 1993?',
      question_id: 'tc_33',
      question_source: 'http://x',
      answer: { value: 'Sunset Boulevard', aliases: ['Sunset Blvd'] },
    }),
    found: { question: 'Which Lloyd Webber musical premiered in the US on 10th December 1993?', answer: 'x' },
  },
};

describe.runIf(needs('addon'))('decontamination', () => {
  test.each(Object.entries(small))(
    '%s: its schema is known, and its item is found in a row',
    async (name, { file, text, found }) => {
      const folder = join(dir, `bench-${number++}`);
      mkdirSync(folder);
      const path = join(folder, file);
      writeFileSync(path, text);
      const inspected = await data.request('inspectBenchmark', {
        benchmark: { path, format: 'auto' },
        files: [path],
      });
      expect(inspected).toMatchObject({ format: name.replace(/ .*/, ''), split: 'test', skipped: 0 });
      expect(inspected.sample[0]!.prompts.length).toBeGreaterThan(0);
      const { rejects, matches } = await mix([clean(1), found, clean(2)], [{ path }]);
      expect(rejects.map(({ sourceRow }) => sourceRow)).toEqual([1]);
      expect(matches[0]).toMatchObject({ sourceRow: 1, item: 0, itemLine: 1, split: 'test', dropped: true });
      const { rowText, rowSpans, itemText, itemSpans } = matches[0]!;
      const words = (shown: string, [from, to]: [number, number]) =>
        shown
          .slice(from, to)
          .toLowerCase()
          .match(/[\p{L}\p{N}]+/gu);
      expect(words(rowText, rowSpans[0]!)).toEqual(words(itemText, itemSpans[0]!));
    },
  );

  test('MBPP’s own training items, and a train file, are reported apart and kept', async () => {
    const path = join(dir, 'mbpp-all.jsonl');
    writeFileSync(path, small['mbpp']!.text);
    const train = {
      question: 'Write a function to count the number of elements of a list that lie within some range.',
      answer: 'x',
    };
    const kept = await mix([clean(1), train], [{ path }]);
    expect(kept.rejects).toEqual([]);
    expect(kept.matches).toMatchObject([{ split: 'train', dropped: false, item: 1 }]);
    expect(kept.result.contamination).toMatchObject([{ itemsFound: 1, rows: 1 }]);
    expect((await mix([clean(1), train], [{ path }], { onTrain: 'drop' })).rejects).toHaveLength(1);
    const named = join(dir, 'piqa_train.jsonl');
    writeFileSync(named, small['piqa']!.text);
    const inspected = await data.request('inspectBenchmark', {
      benchmark: { path: named, format: 'auto' },
      files: [named],
    });
    expect(inspected.split).toBe('train');
  });

  test('floors, coverage, parts and few words', async () => {
    const path = join(dir, 'own.jsonl');
    const item = { q: filler(1, 40), a: 'Yes.' };
    const short = { q: 'What is the capital of Peru?', a: filler(900, 9) };
    writeFileSync(path, [item, short].map((row) => JSON.stringify(row)).join('\n'));
    const own = { path, format: 'own', columns: { prompt: 'q', answer: 'a' } };
    const part = (from: number, count: number) => ({ question: `k ${filler(from, count)} l`, answer: 'm' });
    const rows = [
      part(1, 12),
      part(1, 13),
      part(10, 30),
      { question: 'what is the capital of Peru', answer: 'Lima' },
      { question: 'So, what is the capital of Peru?', answer: 'Yes.' },
      { question: 'n', answer: `Well: ${filler(900, 9)}` },
      clean(50),
    ];
    const dropped = async (settings: object) =>
      (await mix(rows, [own], settings)).rejects.map(({ sourceRow }) => sourceRow);
    expect(await dropped({})).toEqual([1, 2, 3, 5]);
    expect(await dropped({ minCoverage: 0.5 })).toEqual([2, 3, 5]);
    expect(await dropped({ parts: ['prompt'] })).toEqual([1, 2, 3]);
    expect(await dropped({ floor: 10 })).toEqual([1, 2, 3]);
    expect(await dropped({ ngram: 12, floor: 5 })).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test.runIf(needs('data'))(
    'real GSM8K and HumanEval: every planted leak is found, in prompt or answer, on any threads',
    async () => {
      const gsm = readFileSync(testData('data/gsm8k-test.jsonl'), 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Row);
      const humanEval = gunzipSync(readFileSync(testData('data/HumanEval.jsonl.gz')))
        .toString()
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { prompt: string; canonical_solution: string });
      const rows: Row[] = Array.from({ length: 300 }, (_, i) => clean(i));
      // Every seventh GSM8K question in other case inside other text; every ninth HumanEval prompt in an answer.
      const leakedQuestions = gsm.filter((_, i) => i % 7 === 0);
      const leakedPrompts = humanEval.filter((_, i) => i % 9 === 0);
      for (const { question } of leakedQuestions)
        rows.push({
          question: `${filler(1, 5)} ${question.toUpperCase()} ${filler(9, 5)}`,
          answer: filler(20, 9),
        });
      for (const { prompt } of leakedPrompts)
        rows.push({ question: filler(70, 9), answer: `Here:\n\`\`\`python\n${prompt}\n\`\`\`` });
      const imported = await importRows(rows);
      const benchmarks = [
        { path: testData('data/gsm8k-test.jsonl') },
        { path: testData('data/HumanEval.jsonl.gz') },
      ];
      const { result, rejects, matches, outDir } = await mix(imported, benchmarks, {}, 1);
      expect(result.contamination).toMatchObject([
        {
          name: 'gsm8k',
          format: 'gsm8k',
          split: 'test',
          items: 1319,
          skipped: 0,
          rows: leakedQuestions.length,
        },
        {
          name: 'humaneval',
          format: 'humaneval',
          split: 'test',
          items: 164,
          skipped: 0,
          rows: leakedPrompts.length,
        },
      ]);
      expect(rejects.map(({ sourceRow }) => sourceRow)).toEqual(rows.map((_, i) => i).slice(300));
      const whole = matches.filter(({ coverage, itemPart }) => coverage === 1 && itemPart === 'prompt');
      expect(new Set(whole.map(({ sourceRow }) => sourceRow)).size).toBe(rejects.length);
      const eight = await mix(imported, benchmarks, {}, 8);
      for (const name of ['contamination.parquet', 'rejects.parquet', 'mix.parquet', 'manifest.json'])
        expect(readFileSync(join(eight.outDir, name)).equals(readFileSync(join(outDir, name)))).toBe(true);
    },
  );

  test.runIf(needs('data'))(
    'real rows: GSM8K’s training set against its own test set is clean but for what both hold',
    async () => {
      const train = readFileSync(testData('data/gsm8k-train.jsonl'), 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Row);
      const { result, matches } = await mix(train, [
        { path: testData('data/gsm8k-test.jsonl') },
        { path: testData('data/gsm8k-train.jsonl'), name: 'gsm8k-train' },
      ]);
      const [test, own] = result.contamination!;
      expect(own).toMatchObject({ split: 'train', items: 7473, itemsFound: 7473, rows: 7473 });
      expect(test!.rows).toBeLessThan(80);
      expect(result.sources[0]!.rejectedByReason).toEqual({ contaminated: test!.rows });
      expect(matches.filter(({ split, dropped }) => split === 'train' && dropped)).toEqual([]);
    },
  );
});
