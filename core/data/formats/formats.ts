/**
 * Instruction formats: one reader per format turns a row's JSON value into messages, or says what is wrong with it.
 * Sources of the field names: the data sets' own cards (see docs/user-guide.md for the table).
 */
import type { ColumnMapping, Message, RejectReason, SourceFormat } from '../../shared/dataset/source.ts';
import { mendRoles } from './mendRoles.ts';

export interface Problem {
  reason: RejectReason;
  field: string | null;
  detail: string;
}

export interface ReadRow {
  /** The row's own source label, or '' where the format has none. */
  label: string;
  messages: Message[];
  /** What rows of one origin share and no other has: they are never parted between training and validation. */
  group?: string;
}

export type ReadResult =
  | { row: ReadRow }
  | {
      problem: Problem;
      /** The row with its turns put in order, where that is all that is wrong with it. */
      mended?: ReadRow;
    };
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

/** A required array of objects; tables of text (CSV) hold it as JSON. */
function list(fields: Fields, field: string): Fields[] {
  const value = arrayIn(fields[field]);
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

function arrayIn(value: unknown): unknown {
  if (typeof value !== 'string' || !/^\s*\[/.test(value)) return value;
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return value;
  }
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
  before: Message[] = [],
): { row: ReadRow } {
  const answerText = string(fields, answer);
  if (promptText.trim() === '') throw new FieldProblem('empty_prompt', prompt, 'the prompt is empty');
  if (answerText.trim() === '') throw new FieldProblem('empty_answer', answer, 'the answer is empty');
  const messages: Message[] = system === '' ? [] : [{ role: 'system', content: system }];
  messages.push(...before, { role: 'user', content: promptText }, { role: 'assistant', content: answerText });
  return { row: { label, messages } };
}

const roles = new Map<string, Message['role']>([
  ['system', 'system'],
  ['human', 'user'],
  ['user', 'user'],
  ['gpt', 'assistant'],
  ['chatgpt', 'assistant'],
  ['assistant', 'assistant'],
  ['model', 'assistant'],
]);

/** One turn, under the names of ShareGPT or of chat messages. */
function turn(entry: Fields): Message {
  const roleField = 'from' in entry ? 'from' : 'role';
  const given = string(entry, roleField);
  const role = roles.get(given);
  if (role === undefined)
    throw new FieldProblem(
      'bad_role_order',
      roleField,
      `'${roleField}' is '${given.slice(0, 40)}', expected system, user (human) or assistant (gpt)`,
    );
  const content = 'value' in entry ? string(entry, 'value') : contentOf(entry);
  const weight = entry['weight'];
  if (weight !== undefined && weight !== null && weight !== 0 && weight !== 1)
    throw new FieldProblem(
      'wrong_type',
      'weight',
      `'weight' is ${typeof weight === 'number' ? weight : kind(weight)}, expected 0 or 1`,
    );
  // SlimOrca gives prompts weight 0 and answers 1; only an answer's 0 means "not a target".
  return { role, content, ...(role === 'assistant' && weight === 0 && { train: false }) };
}

/** A string, or parts of which each holds text. */
function contentOf(entry: Fields): string {
  if (!Array.isArray(entry['content'])) return string(entry, 'content');
  return list(entry, 'content')
    .map((part, index) =>
      inField(`content[${index}]`, () => {
        if (part['type'] !== undefined && part['type'] !== 'text')
          throw new FieldProblem('wrong_type', 'type', 'only parts of text can be read');
        return string(part, 'text');
      }),
    )
    .join('');
}

function turns(fields: Fields, field: string): Message[] {
  return list(fields, field).map((entry, index) => inField(`${field}[${index}]`, () => turn(entry)));
}

/** Alpaca's earlier turns: [[prompt, answer], …]. */
function history(fields: Fields): Message[] {
  const value = arrayIn(fields['history']);
  if (value === undefined || value === null || value === '') return [];
  if (!Array.isArray(value))
    throw new FieldProblem('wrong_type', 'history', `'history' is ${kind(value)}, expected an array`);
  return value.flatMap((pair: unknown, index): Message[] => {
    const [prompt, answer] = Array.isArray(pair) && pair.length === 2 ? (pair as unknown[]) : [];
    if (typeof prompt !== 'string' || typeof answer !== 'string')
      throw new FieldProblem(
        'wrong_type',
        `history[${index}]`,
        `'history[${index}]' is not a pair of prompt and answer`,
      );
    return [
      { role: 'user', content: prompt },
      { role: 'assistant', content: answer },
    ];
  });
}

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
  messages: (fields) => ({
    row: { label: optionalString(fields, 'source'), messages: turns(fields, 'messages') },
  }),
  sharegpt: (fields) => ({
    row: {
      label: optionalString(fields, 'source'),
      messages: turns(fields, 'conversations' in fields ? 'conversations' : 'conversation'),
    },
  }),
  alpaca(fields) {
    const instruction = string(fields, 'instruction');
    const input = optionalString(fields, 'input');
    return pair(
      fields,
      { system: optionalString(fields, 'system'), prompt: 'instruction', answer: 'output' },
      input === '' ? instruction : `${instruction}\n\n${input}`,
      history(fields),
    );
  },
  'question-answer': (fields) => pair(fields, { prompt: 'question', answer: 'answer' }),
  'prompt-completion'(fields) {
    if (typeof fields['prompt'] === 'string' || typeof fields['completion'] === 'string')
      return pair(fields, { prompt: 'prompt', answer: 'completion' });
    return { row: { label: '', messages: [...turns(fields, 'prompt'), ...turns(fields, 'completion')] } };
  },
  'instruction-response': (fields) => pair(fields, { prompt: 'instruction', answer: 'response' }),
  'problem-solution': (fields) =>
    pair(fields, { label: optionalString(fields, 'lang'), prompt: 'problem', answer: 'solution' }),
  'query-response': (fields) =>
    grouped(
      pair(fields, { label: optionalString(fields, 'type'), prompt: 'query', answer: 'response' }),
      optionalString(fields, 'original_question'),
    ),
  text: (fields) => ({
    row: { label: '', messages: [{ role: 'assistant', content: string(fields, 'text') }] },
  }),
  mapping(fields, mapping) {
    if (!mapping) throw new FieldProblem('missing_field', null, 'format `mapping` without a mapping');
    // A column may be called like something that every object has.
    const own: Fields = Object.assign(Object.create(null) as Fields, fields);
    const optional = (field: string | undefined) => (field === undefined ? '' : optionalString(own, field));
    const { prompt, answer } = mapping;
    return grouped(
      pair(own, { label: optional(mapping.label), system: optional(mapping.system), prompt, answer }),
      optional(mapping.group),
    );
  },
};

function grouped(read: { row: ReadRow }, group: string): ReadResult {
  if (group !== '') read.row.group = group;
  return read;
}

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
    const problem = checkMessages(result.row.messages) ?? checkText(result.row);
    if (!problem) return result;
    const mended = mend(result.row, problem);
    return { problem, ...(mended && { mended }) };
  } catch (error) {
    if (error instanceof FieldProblem) return { problem: error.problem };
    throw error;
  }
}

function mend(row: ReadRow, { reason }: Problem): ReadRow | null {
  if (reason !== 'bad_role_order' && reason !== 'no_assistant_turn' && reason !== 'empty_prompt') return null;
  const messages = mendRoles(row.messages);
  if (!messages || messages.length < 2) return null;
  const mended = { ...row, messages };
  return checkMessages(messages) || checkText(mended) ? null : mended;
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
  if (turns.every((message) => message.role !== 'assistant' || message.train === false))
    return {
      reason: 'no_assistant_turn',
      field: null,
      detail: 'every answer has weight 0: none is a target',
    };
  return null;
}

/** What UTF-8 cannot hold would be replaced in silence on the way; what ends strings elsewhere would cut them. */
function checkText({ label, messages }: ReadRow): Problem | null {
  for (const [index, text] of [label, ...messages.map(({ content }) => content)].entries()) {
    const field = index === 0 ? 'label' : `message ${index}`;
    if (text.includes('\0')) return { reason: 'bad_text', field, detail: 'the text holds a NUL character' };
    if (!text.isWellFormed())
      return { reason: 'bad_text', field, detail: 'the text holds half of a surrogate pair' };
  }
  return null;
}
