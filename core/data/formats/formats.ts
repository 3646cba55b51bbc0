/**
 * Instruction formats: one reader per format turns a row's JSON value into messages, or says what is wrong with it.
 * Sources of the field names: the data sets' own cards (see docs/user-guide.md for the table).
 */
import type { ColumnMapping, Message, RejectReason, SourceFormat } from '../../shared/dataset/source.ts';

export interface Problem {
  reason: RejectReason;
  field: string | null;
  detail: string;
}

export interface ReadRow {
  /** The row's own source label, or '' where the format has none. */
  label: string;
  messages: Message[];
}

export type ReadResult = { row: ReadRow } | { problem: Problem };
type Fields = Record<string, unknown>;
type Reader = (fields: Fields, mapping: ColumnMapping | undefined) => ReadResult;

class FieldProblem extends Error {
  readonly problem: Problem;
  constructor(reason: RejectReason, field: string | null, detail: string) {
    super(detail);
    this.problem = { reason, field, detail };
  }
}

function kind(value: unknown): string {
  return value === null
    ? 'null'
    : Array.isArray(value)
      ? 'an array'
      : typeof value === 'object'
        ? 'an object'
        : `a ${typeof value}`;
}

/** A required string. */
function string(fields: Fields, field: string): string {
  const value = fields[field];
  if (value === undefined) throw new FieldProblem('missing_field', field, `there is no field '${field}'`);
  if (typeof value !== 'string')
    throw new FieldProblem('wrong_type', field, `'${field}' is ${kind(value)}, expected a string`);
  return value;
}

/** A string that may be absent or null: ''. */
function optionalString(fields: Fields, field: string): string {
  const value = fields[field];
  return value === undefined || value === null ? '' : string(fields, field);
}

function list(fields: Fields, field: string): Fields[] {
  const value = fields[field];
  if (value === undefined) throw new FieldProblem('missing_field', field, `there is no field '${field}'`);
  if (!Array.isArray(value))
    throw new FieldProblem('wrong_type', field, `'${field}' is ${kind(value)}, expected an array`);
  return value.map((entry, index) => {
    if (typeof entry !== 'object' || entry === null || Array.isArray(entry))
      throw new FieldProblem(
        'wrong_type',
        `${field}[${index}]`,
        `'${field}[${index}]' is ${kind(entry)}, expected an object`,
      );
    return entry as Fields;
  });
}

function inField<T>(field: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof FieldProblem)) throw error;
    const { reason, field: inner, detail } = error.problem;
    throw new FieldProblem(reason, inner === null ? field : `${field}.${inner}`, detail);
  }
}

/** One question and its answer; an empty one is named by the user's own column. */
function pair(
  fields: Fields,
  {
    label = '',
    system = '',
    prompt,
    answer,
  }: { label?: string; system?: string; prompt: string; answer: string },
  promptText = string(fields, prompt),
): ReadResult {
  const answerText = string(fields, answer);
  if (promptText.trim() === '') throw new FieldProblem('empty_prompt', prompt, 'the prompt is empty');
  if (answerText.trim() === '') throw new FieldProblem('empty_answer', answer, 'the answer is empty');
  const messages: Message[] = system === '' ? [] : [{ role: 'system', content: system }];
  messages.push({ role: 'user', content: promptText }, { role: 'assistant', content: answerText });
  return { row: { label, messages } };
}

const shareGptRoles: Record<string, Message['role']> = {
  system: 'system',
  human: 'user',
  user: 'user',
  gpt: 'assistant',
  assistant: 'assistant',
};

const readers: Record<Exclude<SourceFormat, 'auto'>, Reader> = {
  reference(fields) {
    const corpus = optionalString(fields, 'corpus');
    const label = optionalString(fields, 'dataset');
    if (corpus !== '') return { row: { label, messages: [{ role: 'assistant', content: corpus }] } };
    const turns = list(fields, 'conversation');
    const system = optionalString(fields, 'instruction');
    const messages: Message[] = system === '' ? [] : [{ role: 'system', content: system }];
    turns.forEach((turn, index) =>
      inField(`conversation[${index}]`, () =>
        messages.push(
          { role: 'user', content: string(turn, 'input') },
          { role: 'assistant', content: string(turn, 'output') },
        ),
      ),
    );
    return { row: { label, messages } };
  },
  messages(fields) {
    const messages = list(fields, 'messages').map((entry, index) =>
      inField(`messages[${index}]`, (): Message => {
        const role = string(entry, 'role');
        if (role !== 'system' && role !== 'user' && role !== 'assistant')
          throw new FieldProblem('bad_role_order', 'role', `role '${role}' is not system, user or assistant`);
        return { role, content: string(entry, 'content') };
      }),
    );
    return { row: { label: optionalString(fields, 'source'), messages } };
  },
  sharegpt(fields) {
    const messages = list(fields, 'conversations').map((entry, index) =>
      inField(`conversations[${index}]`, (): Message => {
        const from = string(entry, 'from');
        const role = shareGptRoles[from];
        if (role === undefined)
          throw new FieldProblem(
            'bad_role_order',
            'from',
            `'from' is '${from}', expected system, human or gpt`,
          );
        // SlimOrca gives prompts weight 0 and answers 1; only an answer's 0 means "not a target".
        const muted = role === 'assistant' && entry['weight'] === 0;
        return { role, content: string(entry, 'value'), ...(muted && { train: false }) };
      }),
    );
    return { row: { label: '', messages } };
  },
  alpaca(fields) {
    const instruction = string(fields, 'instruction');
    const input = optionalString(fields, 'input');
    return pair(
      fields,
      { system: optionalString(fields, 'system'), prompt: 'instruction', answer: 'output' },
      input === '' ? instruction : `${instruction}\n\n${input}`,
    );
  },
  'question-answer': (fields) => pair(fields, { prompt: 'question', answer: 'answer' }),
  'prompt-completion': (fields) => pair(fields, { prompt: 'prompt', answer: 'completion' }),
  'instruction-response': (fields) => pair(fields, { prompt: 'instruction', answer: 'response' }),
  'problem-solution': (fields) =>
    pair(fields, { label: optionalString(fields, 'lang'), prompt: 'problem', answer: 'solution' }),
  'query-response': (fields) =>
    pair(fields, { label: optionalString(fields, 'type'), prompt: 'query', answer: 'response' }),
  text: (fields) => ({
    row: { label: '', messages: [{ role: 'assistant', content: string(fields, 'text') }] },
  }),
  mapping(fields, mapping) {
    if (!mapping) throw new FieldProblem('missing_field', null, 'format `mapping` without a mapping');
    return pair(fields, {
      system: mapping.system === undefined ? '' : optionalString(fields, mapping.system),
      prompt: mapping.prompt,
      answer: mapping.answer,
    });
  },
};

/** Reads one row's value. Checks the shape, then what any conversation must be: see {@link checkMessages}. */
export function readRow(
  value: unknown,
  format: Exclude<SourceFormat, 'auto'>,
  mapping?: ColumnMapping,
): ReadResult {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return {
      problem: { reason: 'wrong_type', field: null, detail: `the row is ${kind(value)}, expected an object` },
    };
  try {
    const result = readers[format](value as Fields, mapping);
    if ('problem' in result) return result;
    const problem = checkMessages(result.row.messages);
    return problem ? { problem } : result;
  } catch (error) {
    if (error instanceof FieldProblem) return { problem: error.problem };
    throw error;
  }
}

/**
 * A conversation is an optional system message, then user and assistant in turn, ending with a non-empty answer. A lone
 * assistant message is raw text to continue.
 */
export function checkMessages(messages: readonly Message[]): Problem | null {
  const turns = messages[0]?.role === 'system' ? messages.slice(1) : messages;
  const offset = messages.length - turns.length;
  if (!turns.some((message) => message.role === 'assistant'))
    return { reason: 'no_assistant_turn', field: null, detail: 'no answer to learn from' };
  if (turns.length > 1 || turns[0]?.role !== 'assistant')
    for (const [index, message] of turns.entries()) {
      const expected = index % 2 === 0 ? 'user' : 'assistant';
      if (message.role !== expected)
        return {
          reason: 'bad_role_order',
          field: `message ${index + offset + 1}`,
          detail: `message ${index + offset + 1} is by ${message.role}, expected ${expected}`,
        };
    }
  if (turns.at(-1)!.role !== 'assistant')
    return { reason: 'no_assistant_turn', field: null, detail: 'the last message is not an answer' };
  for (const [index, message] of turns.entries()) {
    if (message.content.trim() !== '') continue;
    const field = `message ${index + offset + 1}`;
    return message.role === 'assistant'
      ? { reason: 'empty_answer', field, detail: 'the answer is empty' }
      : { reason: 'empty_prompt', field, detail: 'the prompt is empty' };
  }
  return null;
}

/** Columns by which a format is known, most telling first. */
const signatures: [Exclude<SourceFormat, 'auto' | 'mapping'>, string[]][] = [
  ['reference', ['conversation', 'instruction', 'dataset']],
  ['reference', ['conversation', 'corpus']],
  ['messages', ['messages']],
  ['sharegpt', ['conversations']],
  ['query-response', ['query', 'response']],
  ['problem-solution', ['problem', 'solution']],
  ['instruction-response', ['instruction', 'response']],
  ['alpaca', ['instruction', 'output']],
  ['question-answer', ['question', 'answer']],
  ['prompt-completion', ['prompt', 'completion']],
  ['text', ['text']],
];

/**
 * Guesses the format from sample rows: the first whose columns most rows have.
 * @returns null, with the columns seen, where none fits.
 */
export function detectFormat(samples: readonly unknown[]): {
  format: Exclude<SourceFormat, 'auto'> | null;
  columns: string[];
  share: number;
} {
  const objects = samples.filter(
    (value): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value),
  );
  const columns = [...new Set(objects.flatMap((fields) => Object.keys(fields)))];
  for (const [format, needed] of signatures) {
    const matching = objects.filter((fields) => needed.every((column) => column in fields)).length;
    if (matching > 0 && matching * 2 >= objects.length)
      return { format, columns, share: matching / Math.max(1, samples.length) };
  }
  return { format: null, columns, share: 0 };
}
