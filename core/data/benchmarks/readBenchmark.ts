/** Items of benchmark files, in the layouts of their publishers (Hugging Face's columns or the original files). */
import { createHash } from 'node:crypto';
import { basename, dirname } from 'node:path';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { Benchmark, BenchmarkFormat, BenchmarkSplit } from '../../shared/dataset/decontamination.ts';
import { readRawRows } from '../formats/rawRows.ts';
import { fileHash } from '../importSource.ts';

export interface BenchmarkItem {
  file: string;
  line: number;
  split: BenchmarkSplit;
  prompts: string[];
  answers: string[];
}

export interface BenchmarkItems {
  name: string;
  format: BenchmarkFormat;
  /** Of the file as a whole; an item may differ (MBPP keeps all splits in one file). */
  split: BenchmarkSplit;
  items: BenchmarkItem[];
  skipped: number;
  contentHash: string;
}

type Fields = Record<string, unknown>;
type Parts = { prompts: unknown[]; answers: unknown[]; split?: BenchmarkSplit };
type KnownFormat = Exclude<BenchmarkFormat, 'auto' | 'own'>;

const indexOf = (value: unknown) =>
  typeof value === 'number' || typeof value === 'bigint' || (typeof value === 'string' && /^\d+$/.test(value))
    ? Number(value)
    : -1;
const list = (value: unknown): unknown[] => (Array.isArray(value) ? (value as unknown[]) : []);
const fieldsOf = (value: unknown): Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {};

/** Columns by which a format is known, most telling first, and what its items hold. */
const layouts: [KnownFormat, string[], (row: Fields) => Parts][] = [
  [
    'humaneval',
    ['task_id', 'prompt', 'canonical_solution'],
    (row) => ({ prompts: [row['prompt']], answers: [row['canonical_solution']] }),
  ],
  ['mbpp', ['task_id', 'code', 'test_list'], mbpp],
  ['mmlu', ['question', 'choices', 'answer', 'subject'], mmlu],
  [
    'hellaswag',
    ['ctx', 'endings', 'label'],
    (row) => ({ prompts: [row['ctx']], answers: picked(list(row['endings']), indexOf(row['label'])) }),
  ],
  [
    'piqa',
    ['goal', 'sol1', 'sol2'],
    (row) => ({
      prompts: [row['goal']],
      answers: picked([row['sol1'], row['sol2']], indexOf(row['label'])),
    }),
  ],
  [
    'winogrande',
    ['sentence', 'option1', 'option2'],
    (row) => ({
      // The blank is filled wherever such a sentence is met.
      prompts: ['option1', 'option2'].map((option) =>
        String(row['sentence']).replace('_', String(row[option])),
      ),
      answers: [],
    }),
  ],
  ['arc', ['question', 'choices', 'answerKey'], arc],
  ['arc', ['question', 'answerKey'], arc],
  [
    'math',
    ['problem', 'level', 'solution'],
    (row) => ({ prompts: [row['problem']], answers: [row['solution']] }),
  ],
  [
    'triviaqa',
    ['question', 'question_id', 'answer'],
    (row) => {
      const { value, aliases } = fieldsOf(row['answer']);
      return { prompts: [row['question']], answers: [value, ...list(aliases)] };
    },
  ],
];

/** NQ-open and GSM8K have the same two columns: an answer of NQ is a list. */
function questionAnswer(row: Fields): KnownFormat | null {
  if (typeof row['question'] !== 'string') return null;
  if (Array.isArray(row['answer'])) return 'naturalquestions';
  return typeof row['answer'] === 'string' && row['answer'].includes('####') ? 'gsm8k' : null;
}

function read(format: KnownFormat, row: Fields): Parts {
  if (format === 'naturalquestions') return { prompts: [row['question']], answers: list(row['answer']) };
  if (format === 'gsm8k')
    // Calculator marks are in no answer that was learnt from.
    return { prompts: [row['question']], answers: [String(row['answer']).replace(/<<[^<>]*>>/g, '')] };
  return (
    layouts.find(([name, columns]) => name === format && columns.every((column) => column in row))?.[2](
      row,
    ) ?? { prompts: [], answers: [] }
  );
}

/** Of all in one file, 601 to 974 are for training. */
function mbpp(row: Fields): Parts {
  const id = indexOf(row['task_id']);
  return {
    prompts: [row['text'] ?? row['prompt']],
    answers: [row['code']],
    ...(id >= 601 && id <= 974 && { split: 'train' as const }),
  };
}

function mmlu(row: Fields): Parts {
  const choices = list(row['choices']);
  const answer = row['answer'];
  const at =
    typeof answer === 'string' && /^[A-D]$/.test(answer) ? answer.charCodeAt(0) - 65 : indexOf(answer);
  return { prompts: [row['question']], answers: picked(choices, at) };
}

function arc(row: Fields): Parts {
  // The original has {stem, choices: [{text, label}]}, Hugging Face's {text: [], label: []}.
  const question = row['question'];
  const original = fieldsOf(question);
  const choices = original['choices'] ?? row['choices'];
  const texts = Array.isArray(choices)
    ? choices.map((one) => fieldsOf(one)['text'])
    : list(fieldsOf(choices)['text']);
  const labels = Array.isArray(choices)
    ? choices.map((one) => fieldsOf(one)['label'])
    : list(fieldsOf(choices)['label']);
  return {
    prompts: [original['stem'] ?? question],
    answers: picked(texts, labels.indexOf(row['answerKey'])),
  };
}

/** The right one; all where the file does not say which. */
function picked(choices: unknown[], index: number): unknown[] {
  return index >= 0 && index < choices.length ? [choices[index]] : choices;
}

function guess(row: Fields): KnownFormat | null {
  const known = layouts.find(([, columns]) => columns.every((column) => column in row));
  return known?.[0] ?? questionAnswer(row);
}

/** MMLU's own files have no header: the reader takes the first item for one. */
function headerless(row: Fields): Fields[] | null {
  const names = Object.keys(row);
  const isLetter = (text: unknown) => typeof text === 'string' && /^[A-D]$/.test(text);
  if (names.length !== 6 || !isLetter(Object.values(row)[5])) return null;
  const item = ([question, a, b, c, d, answer]: unknown[]): Fields => ({
    question,
    subject: '',
    choices: [a, b, c, d],
    answer,
  });
  return isLetter(names[5]) ? [item(names), item(Object.values(row))] : null;
}

/** @param files absolute; `benchmark.path` is only named */
export async function readBenchmark(benchmark: Benchmark, files: readonly string[]): Promise<BenchmarkItems> {
  let format: BenchmarkFormat | null = benchmark.format === 'auto' ? null : benchmark.format;
  const items: BenchmarkItem[] = [];
  const hash = createHash('sha256');
  let skipped = 0;
  let bareRows = 0;
  for (const file of files) {
    const split = benchmark.split ?? splitOf(file);
    const add = (row: Fields, line: number) => {
      const parts =
        format === 'own'
          ? { prompts: [row[benchmark.columns!.prompt]], answers: [row[benchmark.columns!.answer ?? '']] }
          : read(format as KnownFormat, row);
      const texts = (of: unknown[]) =>
        of.filter((text): text is string => typeof text === 'string' && text.trim() !== '');
      const [prompts, answers] = [texts(parts.prompts), texts(parts.answers)];
      if (prompts.length === 0 && answers.length === 0) skipped++;
      else
        items.push({
          file: basename(file),
          line,
          split: benchmark.split ?? ('split' in parts ? parts.split : undefined) ?? split,
          prompts,
          answers,
        });
    };
    let first = true;
    for await (const { line, content } of readRawRows(file)) {
      if ('problem' in content) {
        skipped++;
        continue;
      }
      const row = fieldsOf(content.value);
      const bare = format === null || format === 'mmlu' ? headerless(row) : null;
      if (bare) {
        format = 'mmlu';
        if (first) add(bare[0]!, line - 1);
        add(bare[1]!, line);
        bareRows++;
      } else if (bareRows > 0 && !('question' in row)) add(fieldsOf(headerless(row)?.[1]), line);
      else {
        format ??= guess(row);
        if (format === null)
          throw new CaravanError(
            'bad_file',
            `no known benchmark has the columns ${Object.keys(row).slice(0, 20).join(', ') || '(none)'}`,
            {
              place: { file, line },
              mend: 'Name them: format: own with columns: {prompt, answer}.',
            },
          );
        add(row, line);
      }
      first = false;
    }
    hash.update(await fileHash(file));
  }
  if (items.length === 0)
    throw new CaravanError('no_rows', `not one item could be read${format ? ` as ${format}` : ''}`, {
      place: { file: files[0]! },
      mend: 'Check the file and the format of this benchmark.',
    });
  return {
    name: benchmark.name ?? format!,
    format: format!,
    split: benchmark.split ?? splitOf(files[0]!),
    items,
    skipped,
    contentHash: hash.digest('hex'),
  };
}

/** What the name of a file or of its folder says. */
function splitOf(file: string): BenchmarkSplit {
  return /(^|[^a-z])train([^a-z]|$)/i.test(basename(file)) || /^train$/i.test(basename(dirname(file)))
    ? 'train'
    : 'test';
}
