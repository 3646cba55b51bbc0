/**
 * Some 200 things that are wrong, or look wrong, with rows of real files, each with what import must make of it. Good rows
 * stand between them: every one must be kept.
 */
import { closeSync, openSync, writeSync } from 'node:fs';

/** 'kept', the reason of its rejection, or 'blank': no row at all. */
export type Outcome = string;

export interface Defect {
  name: string;
  line: Buffer;
  outcome: Outcome;
}

/** Written in pieces, so that the generator itself stays small. */
export const longLineBytes = 100 * 1024 * 1024;

const text = (value: string) => Buffer.from(value);
const row = (fields: object) => JSON.stringify(fields);
const good = { question: 'What is one and one?', answer: 'Two.' };

function list(outcome: Outcome, name: string, lines: readonly (string | Buffer)[]): Defect[] {
  return lines.map((line, index) => ({
    name: `${name} ${index + 1}`,
    line: typeof line === 'string' ? text(line) : line,
    outcome,
  }));
}

/** The good row with `bytes` in the middle of its question, and of its answer. */
function around(bytes: number[]): Buffer[] {
  return ['one', 'Tw'].map((word) => {
    const whole = row(good);
    const at = whole.indexOf(word);
    return Buffer.concat([text(whole.slice(0, at)), Buffer.from(bytes), text(whole.slice(at))]);
  });
}

const bothFields = (value: string) => [
  `{"question":"a${value}","answer":"b"}`,
  `{"question":"a","answer":"b${value}"}`,
];

const wrongBytes = [
  [0x80], [0xbf], [0xff], [0xfe], [0xc3, 0x28], [0xc0, 0xaf], [0xe0, 0x80, 0xaf], [0xed, 0xa0, 0x80],
  [0xe2, 0x82], [0xf0, 0x9f, 0x98], [0xf5, 0x80, 0x80, 0x80], [0xf4, 0x90, 0x80, 0x80],
  [0xe9], // é of Latin-1
  [0x93, 0x94], // quotes of Windows-1252
  [0x82, 0xa0], // Shift-JIS
  [0xc4, 0xe3], // GBK
]; // prettier-ignore

const wrongValues = ['null', '7', '1.5', 'true', '[]', '{}', '["text"]', '{"text":"x"}'];
const emptyTexts = ['', ' ', '\n\t\r', '\u00a0', '\u3000', '\ufeff'];

/** Lines of a JSONL file of {question, answer}. */
export function jsonlDefects(): Defect[] {
  const whole = row(good);
  const cuts = Array.from({ length: 13 }, (_, i) => whole.slice(0, 1 + i * 4));
  return [
    ...list('wrong_type', 'a question that is no text', wrongValues.map((v) => `{"question":${v},"answer":"a"}`)),
    ...list('wrong_type', 'an answer that is no text', wrongValues.map((v) => `{"question":"q","answer":${v}}`)),
    ...list('wrong_type', 'a row that is no object', ['null', '7', '-1e3', 'true', '"text"', '[]', '[[{}]]']),
    ...list('missing_field', 'a missing column', ['{}', '{"question":"q"}', '{"answer":"a"}', '{"Question":"q","answer":"a"}', '{"":"q"}']),
    ...list('empty_prompt', 'an empty question', emptyTexts.map((t) => row({ question: t, answer: 'a' }))),
    ...list('empty_answer', 'an empty answer', emptyTexts.map((t) => row({ question: 'q', answer: t }))),
    ...list('invalid_utf8', 'broken UTF-8', wrongBytes.flatMap(around)),
    ...list('invalid_utf8', 'UTF-16 in the middle', [Buffer.from(`\ufeff${whole}`, 'utf16le').subarray(0, -2)]),
    ...list('malformed_json', 'a cut line', cuts),
    ...list('malformed_json', 'no JSON', [
      `{'question':'q','answer':'a'}`, '{"question":"q","answer":"a",}', '{question:"q",answer:"a"}',
      `${whole} // comment`, `/* c */ ${whole}`, '{"question":NaN,"answer":"a"}', '{"question":"q","answer":"a","x":0x10}',
      '{"question":"q","answer":"a","x":+1}', '{"question":"q","answer":"a","x":01}', '{"question":"q" "answer":"a"}',
      `${whole}${whole}`, `${whole},`, '{"question":"say "hi"","answer":"a"}', '<row>q</row>', 'undefined', '---', '#', 'q,a', '}', '{"a":"\\x41"}',
      `\f${whole}`, `\v${whole}`, `\u00a0${whole}`, `{"question":"q","answer":"a\\"}`, `{"question":"q","answer":"\\ud83"}`,
    ]),
    ...list('malformed_json', 'a control character', ['\0', '\x01', '\x08', '\t', '\x1f'].flatMap(bothFields)),
    ...list('malformed_json', 'NUL bytes', ['\0', '\0'.repeat(4096), `\0${whole}`, `${whole}\0`]),
    ...list('bad_text', 'an escaped NUL', bothFields('\\u0000')),
    ...list('bad_text', 'half a surrogate pair', ['\\ud800', '\\udc00', '\\udc00\\ud800'].flatMap(bothFields)),
    ...list('too_complex', 'a bomb', [
      '['.repeat(100_000), `${'['.repeat(100_000)}${']'.repeat(100_000)}`, '{"a":'.repeat(50_000),
      `{"question":"q","answer":"a","x":${'['.repeat(70)}${']'.repeat(70)},"pad":"${'p'.repeat(70_000)}"}`,
      `{"question":"q","answer":"a","x":[${'0,'.repeat(200_000)}0]}`, `{"question":"q","answer":"a","x":[${'[],'.repeat(500_000)}0]}`,
      `{${Array.from({ length: 150_000 }, (_, i) => `"k${i}":0`).join(',')}}`,
      '['.repeat(15 * 1024 * 1024),
    ]),
    ...list('row_too_long', 'a line over the limit', [
      `{"question":"q","answer":"${'a'.repeat(16 * 1024 * 1024)}"}`, '['.repeat(17 * 1024 * 1024), ' '.repeat(17 * 1024 * 1024),
    ]),
    ...list('kept', 'a large row', [
      row({ question: 'q', answer: 'a'.repeat(1_000_000) }), row({ question: 'é'.repeat(100_000), answer: '😀'.repeat(100_000) }),
      row({ question: 'q', answer: '"\\\n'.repeat(100_000) }), row({ question: 'q', answer: `${'[{'.repeat(50_000)}` }),
      row({ question: 'q', answer: 'a'.repeat(10 * 1024 * 1024) }),
    ]),
    ...list('kept', 'an odd but good row', [
      `${whole}\r`, `  ${whole}\t `, `\ufeff${whole}`, whole.replace(',', ',\r'),
      '{"question":"\\ud83d\\ude00","answer":"a"}', row({ question: 'a\u2028b\u2029c', answer: '\u200b' }),
      row({ question: 'مرحبا\u202e', answer: 'e\u0301' }), '{"question":"p","question":"q","answer":"a"}',
      '{"__proto__":{"question":"x"},"question":"q","answer":"a"}', '{"constructor":1,"toString":2,"question":"q","answer":"a"}',
      '{"question":"q","answer":"a","x":1e999}', `{"question":"q","answer":"a","x":${'9'.repeat(5000)}}`,
      `{"question":"q","answer":"a","x":${'['.repeat(60)}${']'.repeat(60)}}`,
      row({ id: 'twice', ...good }), row({ id: 'twice', question: 'q', answer: 'a' }), row({ id: null, ...good }), whole, whole,
    ]),
    ...list('blank', 'a blank line', ['', ' ', '\t', '\r', ' \r']),
  ]; // prettier-ignore
}

const turn = (from: unknown, value: unknown, more: object = {}) => ({ from, value, ...more });
const chat = (...conversations: unknown[]) => row({ conversations });
const ask = turn('human', 'q');
const reply = turn('gpt', 'a');

/** Lines of a JSONL file in ShareGPT's format. */
export function conversationDefects(): Defect[] {
  return [
    ...list('wrong_type', 'no list of turns', ['null', '7', '"text"', '{}', 'true', '"[1"'].map((v) => `{"conversations":${v}}`)),
    ...list('wrong_type', 'a turn that is no object', [null, 7, 'text', [], true].map((v) => chat(ask, v, reply))),
    ...list('wrong_type', 'a text that is none', [null, 7, [], {}, true].map((v) => chat(ask, turn('gpt', v)))),
    ...list('wrong_type', 'a role that is none', [null, 7, [], {}].map((v) => chat(turn(v, 'q'), reply))),
    ...list('wrong_type', 'a weight that is none', ['0', 0.5, -1, 2, [], true].map((weight) => chat(ask, turn('gpt', 'a', { weight })))),
    ...list('missing_field', 'a turn without a field', [chat({ from: 'human' }, reply), chat({ value: 'q' }, reply), chat({}, reply), row({ turns: [] })]),
    ...list('bad_role_order', 'an unknown role', ['tool', 'Human', '', 'constructor', '__proto__', 'bing'].map((v) => chat(turn(v, 'q'), reply))),
    ...list('bad_role_order', 'turns out of order', [
      chat(ask, ask, reply), chat(reply, ask, reply), chat(ask, reply, reply), chat(ask, turn('system', 's'), reply),
      chat(turn('system', 's'), turn('system', 's'), ask, reply), chat(reply, reply),
    ]),
    ...list('no_assistant_turn', 'nothing to learn', [
      chat(), chat(ask), chat(turn('system', 's')), chat(turn('system', 's'), ask), chat(ask, reply, ask),
      chat(ask, turn('gpt', 'a', { weight: 0 })), chat(ask, turn('gpt', 'a', { weight: 0 }), ask, turn('gpt', 'b', { weight: 0 })),
    ]),
    ...list('empty_answer', 'an empty turn of the model', [chat(ask, turn('gpt', '')), chat(ask, turn('gpt', ' \n'), ask, reply)]),
    ...list('empty_prompt', 'an empty turn of the user', [chat(turn('human', ''), reply), chat(ask, reply, turn('human', '\t'), reply)]),
    ...list('bad_text', 'a turn with half a pair', [chat(ask, turn('gpt', 'a\ud800'))]),
    ...list('kept', 'an odd but good conversation', [
      chat(ask, turn('gpt', 'a', { weight: null })), chat(ask, turn('gpt', 'a', { weight: 0 }), ask, turn('gpt', 'b', { weight: 1 })),
      chat(turn('system', ''), ask, reply), chat(reply), chat(...Array.from({ length: 400 }, (_, i) => (i % 2 ? reply : ask))),
      chat({ role: 'user', content: 'q' }, { role: 'assistant', content: 'a' }), row({ conversations: JSON.stringify([ask, reply]) }),
    ]),
  ]; // prettier-ignore
}

/** Records of a CSV file of question,answer,note; one may span lines, and each line that is not part of a row is named. */
export function csvDefects(): { name: string; text: Buffer<ArrayBuffer>; outcomes: Outcome[] }[] {
  const of = (name: string, value: string | Buffer<ArrayBuffer>, ...outcomes: Outcome[]) => ({
    name,
    text: typeof value === 'string' ? text(value) : value,
    outcomes,
  });
  return [
    of('too few fields', 'q,a\n', 'malformed_csv'),
    of('too many fields', 'q,a,n,x\n', 'malformed_csv'),
    of('one field', 'q\n', 'malformed_csv'),
    of('text after a closing quote', '"q"x,a,n\n', 'malformed_csv'),
    of('a quote that opens and never closes', '"q,a,n\n', 'malformed_csv'),
    of('a quote that closes in a later row', 'q,"a,n\nq2,"a2",n\n', 'malformed_csv', 'kept'),
    of('a quote that swallows a row and balances', 'q,"a\nq2,a2",n,m,o\n', 'malformed_csv', 'malformed_csv'),
    of('broken UTF-8', Buffer.concat([text('q,a'), Buffer.from([0xe9]), text(',n\n')]), 'invalid_utf8'),
    of('a NUL', 'q,a\0,n\n', 'bad_text'),
    of('an empty answer', 'q,,n\n', 'empty_answer'),
    of('a quoted empty question', '"",a,n\n', 'empty_prompt'),
    of('all fields empty', ',,\n', 'empty_prompt'),
    of('a blank line', '\n'),
    of('a blank line with a carriage return', '\r\n'),
    of('quotes inside an unquoted field', 'q "x",a,n\n', 'kept'),
    of('doubled quotes', '"say ""hi""",a,n\n', 'kept'),
    of('lines and delimiters inside quotes', '"q\n,2","a\r\n\nb",n\n', 'kept'),
    of('carriage return and newline', 'q,a,n\r\n', 'kept'),
    of('a quoted last field before a carriage return', 'q,a,"n"\r\n', 'kept'),
    of('a very long line', `${'x'.repeat(17 * 1024 * 1024)},a,n\n`, 'row_too_long'),
  ];
}

/** Writes a good row, a defect, a good row, a defect … and one line of 100 MB. @returns the outcome of each line, from 1. */
export function writeDefects(path: string, defects: readonly Defect[], goodRow: string): Outcome[] {
  const outcomes: Outcome[] = [];
  const file = openSync(path, 'w');
  const line = (bytes: Buffer, outcome: Outcome) => {
    writeSync(file, bytes);
    writeSync(file, '\n');
    outcomes.push(outcome);
  };
  for (const { line: bytes, outcome } of defects) {
    line(text(goodRow), 'kept');
    line(bytes, outcome);
  }
  writeSync(file, '{"question":"q","answer":"');
  const piece = Buffer.alloc(1024 * 1024, 'a');
  for (let written = 0; written < longLineBytes; written += piece.length) writeSync(file, piece);
  line(text('"}'), 'row_too_long');
  line(text(goodRow), 'kept');
  closeSync(file);
  return outcomes;
}
