import { describe, expect, test } from 'vitest';
import { sourceFormats, type ColumnMapping, type SourceFormat } from '../../shared/dataset/source.ts';
import { detectFormat, readRow } from './formats.ts';

const user = (content: string) => ({ role: 'user', content });
const assistant = (content: string) => ({ role: 'assistant', content });
const system = (content: string) => ({ role: 'system', content });

const cases: {
  format: Exclude<SourceFormat, 'auto'>;
  row: object;
  mapping?: ColumnMapping;
  label: string;
  messages: object[];
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

describe.each(cases)('$format', ({ format, row, mapping, label, messages }) => {
  test('reads its row', () => {
    expect(readRow(row, format, mapping)).toEqual({ row: { label, messages } });
  });
  test(format === 'mapping' ? 'is never guessed' : 'is recognised', () => {
    expect(detectFormat([row, row]).format).toBe(format === 'mapping' ? null : format);
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
  expect(detectFormat([{ foo: 1 }, { bar: 2 }])).toMatchObject({ format: null, columns: ['foo', 'bar'] });
});
