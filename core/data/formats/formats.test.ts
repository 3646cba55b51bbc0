import { describe, expect, test } from 'vitest';
import { sourceFormats, type ColumnMapping, type SourceFormat } from '../../shared/dataset/source.ts';
import { readRow } from './formats.ts';
import { describeGuess, FormatGuess, type Guess } from './guessFormat.ts';

function guessOf(rows: readonly unknown[]): Guess {
  const guess = new FormatGuess();
  for (const row of rows) guess.add(row);
  return guess.result();
}

const user = (content: string) => ({ role: 'user', content });
const assistant = (content: string) => ({ role: 'assistant', content });
const system = (content: string) => ({ role: 'system', content });

const cases: {
  format: Exclude<SourceFormat, 'auto'>;
  row: object;
  mapping?: ColumnMapping;
  label: string;
  messages: object[];
  group?: string;
}[] = [
  {
    format: 'reference',
    row: {
      corpus: '',
      dataset: 'slimorca',
      instruction: 'Be brief.',
      conversation: [
        { input: 'q', output: 'a' },
        { input: 'q2', output: 'a2' },
      ],
    },
    label: 'slimorca',
    messages: [system('Be brief.'), user('q'), assistant('a'), user('q2'), assistant('a2')],
  },
  {
    format: 'messages',
    row: { messages: [user('q'), assistant('a')] },
    label: '',
    messages: [user('q'), assistant('a')],
  },
  {
    format: 'sharegpt',
    row: {
      conversations: [
        { from: 'system', value: 's', weight: null },
        { from: 'human', value: 'q', weight: 0 },
        { from: 'gpt', value: 'a', weight: 1 },
        { from: 'human', value: 'q2' },
        { from: 'gpt', value: 'context', weight: 0 },
      ],
    },
    label: '',
    messages: [system('s'), user('q'), assistant('a'), user('q2'), { ...assistant('context'), train: false }],
  },
  {
    format: 'alpaca',
    row: { instruction: 'i', input: 'x', output: 'o' },
    label: '',
    messages: [user('i\n\nx'), assistant('o')],
  },
  {
    format: 'question-answer',
    row: { question: 'q', answer: 'a' },
    label: '',
    messages: [user('q'), assistant('a')],
  },
  {
    format: 'prompt-completion',
    row: { prompt: 'q', completion: 'a' },
    label: '',
    messages: [user('q'), assistant('a')],
  },
  {
    format: 'instruction-response',
    row: { instruction: 'q', response: 'a' },
    label: '',
    messages: [user('q'), assistant('a')],
  },
  {
    format: 'problem-solution',
    row: { lang: 'python', problem: 'q', solution: 'a', index: 3 },
    label: 'python',
    messages: [user('q'), assistant('a')],
  },
  {
    format: 'query-response',
    row: { type: 'GSM_SV', query: 'q', original_question: 'o', response: 'a' },
    label: 'GSM_SV',
    group: 'o',
    messages: [user('q'), assistant('a')],
  },
  { format: 'text', row: { text: 'Once.' }, label: '', messages: [assistant('Once.')] },
  {
    format: 'mapping',
    row: { ask: 'q', reply: 'a', note: 's' },
    mapping: { prompt: 'ask', answer: 'reply', system: 'note' },
    label: '',
    messages: [system('s'), user('q'), assistant('a')],
  },
];

test('every format has a case', () => {
  expect(new Set(cases.map((c) => c.format))).toEqual(new Set(sourceFormats.filter((f) => f !== 'auto')));
});

describe.each(cases)('$format', ({ format, row, mapping, label, messages, group }) => {
  test('reads its row', () => {
    expect(readRow(row, format, mapping)).toEqual({ row: { label, messages, ...(group && { group }) } });
  });
  test(format === 'mapping' ? 'is never guessed' : 'is recognised', () => {
    expect(guessOf([row, row]).format).toBe(format === 'mapping' ? null : format);
  });
});

describe('bad rows are named', () => {
  const bad: [string, unknown, Exclude<SourceFormat, 'auto'>, object][] = [
    ['not an object', 'text', 'messages', { reason: 'wrong_type', field: null }],
    ['missing field', { question: 'q' }, 'question-answer', { reason: 'missing_field', field: 'answer' }],
    [
      'wrong type',
      { question: 1, answer: 'a' },
      'question-answer',
      { reason: 'wrong_type', field: 'question' },
    ],
    [
      'empty answer',
      { question: 'q', answer: ' \n' },
      'question-answer',
      { reason: 'empty_answer', field: 'answer' },
    ],
    [
      'empty prompt',
      { question: '', answer: 'a' },
      'question-answer',
      { reason: 'empty_prompt', field: 'question' },
    ],
    [
      'empty answer of a conversation',
      { messages: [user('q'), assistant('')] },
      'messages',
      { reason: 'empty_answer', field: 'message 2' },
    ],
    [
      'two users',
      { messages: [user('q'), user('q2'), assistant('a')] },
      'messages',
      { reason: 'bad_role_order', field: 'message 2' },
    ],
    ['no answer', { messages: [user('q')] }, 'messages', { reason: 'no_assistant_turn' }],
    [
      'no last answer',
      { messages: [user('q'), assistant('a'), user('q2')] },
      'messages',
      { reason: 'no_assistant_turn' },
    ],
    [
      'unknown role',
      { messages: [{ role: 'tool', content: 'x' }, assistant('a')] },
      'messages',
      { reason: 'bad_role_order', field: 'messages[0].role' },
    ],
    [
      'nested wrong type',
      { dataset: 'x', conversation: [{ input: 'q', output: null }] },
      'reference',
      { reason: 'wrong_type', field: 'conversation[0].output' },
    ],
  ];
  test.each(bad)('%s', (_, row, format, expected) => {
    expect(readRow(row, format)).toMatchObject({ problem: expected });
  });
});

test('an unknown shape lists the columns seen', () => {
  expect(guessOf([{ foo: 1 }, { bar: 2 }])).toMatchObject({ format: null, columns: ['foo', 'bar'] });
});

test('a guess says how sure it is', () => {
  const row = { instruction: 'q', output: 'a' };
  expect(describeGuess(guessOf([row, row]))).toBe(
    'guessed the format alpaca (sure): all of the first 2 rows read as it',
  );
  const empty = { instruction: 'q', output: '' };
  expect(describeGuess(guessOf([row, empty, empty]))).toBe(
    'guessed the format alpaca (unsure): 1 of the first 3 rows read as it',
  );
  expect(describeGuess(guessOf([{ ...row, response: 'a' }]))).toContain('would also fit alpaca');
});

test('the format in which rows can be read wins over one whose columns come first', () => {
  const row = {
    messages: null,
    conversations: [
      { from: 'human', value: 'q' },
      { from: 'gpt', value: 'a' },
    ],
  };
  expect(guessOf([row, row])).toMatchObject({ format: 'sharegpt', readable: 2, others: [] });
});

describe('further shapes', () => {
  const shapes: [string, object, Exclude<SourceFormat, 'auto'>, object[]][] = [
    [
      'Alpaca with a system prompt and history',
      { system: 's', history: [['q0', 'a0']], instruction: 'q', input: '', output: 'a' },
      'alpaca',
      [system('s'), user('q0'), assistant('a0'), user('q'), assistant('a')],
    ],
    [
      'ShareGPT under the names of messages',
      { conversations: [user('q'), assistant('a')] },
      'sharegpt',
      [user('q'), assistant('a')],
    ],
    [
      'messages with weights and parts of text',
      {
        messages: [
          { role: 'user', content: [{ type: 'text', text: 'q' }] },
          { ...assistant('a'), weight: 0 },
          user('q2'),
          { ...assistant('a2'), weight: 1 },
        ],
      },
      'messages',
      [user('q'), { ...assistant('a'), train: false }, user('q2'), assistant('a2')],
    ],
    [
      'prompt and completion as messages',
      { prompt: [system('s'), user('q')], completion: [assistant('a')] },
      'prompt-completion',
      [system('s'), user('q'), assistant('a')],
    ],
    [
      'a table of text that holds JSON',
      { messages: JSON.stringify([user('q'), assistant('a')]) },
      'messages',
      [user('q'), assistant('a')],
    ],
  ];
  test.each(shapes)('%s', (_, row, format, messages) => {
    expect(readRow(row, format)).toEqual({ row: { label: '', messages } });
    expect(guessOf([row]).format).toBe(format);
  });
});

test('own columns give label and group', () => {
  const mapping = { prompt: 'p', answer: 'a', label: 'constructor', group: 'seed' };
  expect(readRow({ p: 'q', a: 'x', constructor: 'L', seed: 'S' }, 'mapping', mapping)).toMatchObject({
    row: { label: 'L', group: 'S' },
  });
  expect(readRow({ p: 'q', a: 'x' }, 'mapping', mapping)).toMatchObject({ row: { label: '' } });
});
