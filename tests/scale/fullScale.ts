/**
 * Stand-ins for the four sources of IDAE at their full size, with the real schemas and with the duplicates and defects
 * that such files have. Made of pseudo-words by one generator of numbers: the same bytes on every machine.
 */
import { once } from 'node:events';
import { createWriteStream, type WriteStream } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

/** Rows at scale 1, as published. */
export const fullScaleRows = {
  slimorca: 517_982,
  ossInstruct: 75_197,
  evolInstruct: 111_183,
  metaMath: 395_000,
} as const;
export type FullScaleSource = keyof typeof fullScaleRows;

export const fullScaleFiles: Record<FullScaleSource, string> = {
  slimorca: 'oo-labeled_correct.gpt4.sharegpt.jsonl',
  ossInstruct: 'data-oss_instruct-decontaminated.jsonl',
  evolInstruct: 'data-evol_instruct-decontaminated.jsonl',
  metaMath: 'MetaMathQA-395K.json',
};

/** What was put in on purpose, so that a test can count what is found. */
export interface Planted {
  rows: number;
  bytes: number;
  /** Lines that are no JSON, and rows whose answer is empty. */
  malformed: number;
  emptyAnswers: number;
  /** Rows equal to an earlier one, and rows with a few words of an earlier one changed. */
  exact: number;
  near: number;
  refusals: number;
  /** Rows that hold one of `leaks`. */
  leaked: number;
}

export interface FullScaleOptions {
  /** Of the published number of rows. */
  scale?: number;
  /** Texts of benchmark items, each put into one SlimOrca row in a thousand, in turn. */
  leaks?: readonly string[];
}

/** xorshift32. */
class Numbers {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 1;
  }
  below(n: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return (x >>> 0) % n;
  }
  chance(oneIn: number): boolean {
    return this.below(oneIn) === 0;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

const common =
  `the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one
  you were all her she there would their we him been has when who will no more if out so up said what its about than into
  them can only other time new some could these two may first then do any like my now over such our man me even most made
  after also well many must before back through years where much your way down should because long each just state those`
    .split(/\s+/)
    .filter(Boolean);
const syllables =
  'ba ra ti lo men ver con sta per ne mi do ka su tra len gra po ri ance al tion ing er ly un dis pre ment or fi cu'.split(
    ' ',
  );

function vocabulary(numbers: Numbers): string[] {
  const words = new Set(common);
  while (words.size < 24_000) {
    let word = '';
    for (let i = 2 + numbers.below(3); i > 0; i--) word += numbers.pick(syllables);
    words.add(word);
  }
  return [...words];
}

/** Writes text; three words of four are common ones, as in prose. */
class Prose {
  readonly #numbers: Numbers;
  readonly #sentences: string[][];
  readonly #words: string[];

  constructor(seed: number) {
    this.#numbers = new Numbers(seed);
    this.#words = vocabulary(this.#numbers);
    this.#sentences = Array.from({ length: 40_000 }, () =>
      Array.from({ length: 7 + this.#numbers.below(10) }, () => this.word()),
    );
  }

  word(): string {
    return this.#numbers.below(4) > 0 ? this.#numbers.pick(common) : this.#numbers.pick(this.#words);
  }

  /** Words enough for about `characters`: known sentences with two words of each drawn anew, so that no two are alike. */
  text(characters: number): string[] {
    const words: string[] = [];
    for (let length = 0; length < characters;) {
      const sentence = [...this.#numbers.pick(this.#sentences)];
      for (let i = 0; i < 2; i++) sentence[this.#numbers.below(sentence.length)] = this.word();
      for (const word of sentence) length += word.length + 1;
      sentence[0] = sentence[0]![0]!.toUpperCase() + sentence[0]!.slice(1);
      sentence[sentence.length - 1] += this.#numbers.chance(6) ? '.\n' : '.';
      words.push(...sentence);
    }
    return words;
  }
}

interface Pair {
  prompt: string[];
  answer: string[];
}

type Line = (pair: { prompt: string; answer: string }, row: number, numbers: Numbers) => unknown;

interface Shape {
  seed: number;
  promptCharacters: [least: number, spread: number];
  answerCharacters: [least: number, spread: number];
  /** One row in so many repeats an earlier one, or nearly. */
  exactOneIn: number;
  nearOneIn: number;
  line: Line;
}

const systems = [
  'You are an AI assistant. You will be given a task. You must generate a detailed and long answer.',
  'You are an AI assistant that follows instruction extremely well. Help as much as you can.',
  'You are a helpful assistant, who always provide explanation. Think like you are answering to a five year old.',
  'You are an AI assistant. Provide a detailed answer so user don’t need to search outside to understand the answer.',
];
const programmingLanguages = [
  'python',
  'cpp',
  'java',
  'typescript',
  'shell',
  'csharp',
  'rust',
  'php',
  'swift',
];
const mathTypes = [
  ...Array<string>(80).fill('GSM_AnsAug'),
  ...Array<string>(80).fill('GSM_Rephrased'),
  ...Array<string>(40).fill('GSM_SV'),
  ...Array<string>(40).fill('GSM_FOBAR'),
  ...Array<string>(75).fill('MATH_AnsAug'),
  ...Array<string>(50).fill('MATH_Rephrased'),
  ...Array<string>(15).fill('MATH_SV'),
  ...Array<string>(15).fill('MATH_FOBAR'),
];

function codeOf(text: string): string {
  const lines = text.split('. ').slice(0, 12);
  return lines
    .map(
      (line, i) =>
        `${'    '.repeat(1 + (i % 2))}${line
          .toLowerCase()
          .replace(/[^a-z ]/g, '')
          .trim()
          .replaceAll(' ', '_')} = f(x, ${i})`,
    )
    .join('\n');
}

const shapes: Record<FullScaleSource, Shape> = {
  slimorca: {
    seed: 11,
    promptCharacters: [120, 1150],
    answerCharacters: [60, 1000],
    exactOneIn: 50,
    nearOneIn: 4,
    line: ({ prompt, answer }, _, numbers) => ({
      conversations: [
        ...(numbers.chance(25) ? [] : [{ from: 'system', value: numbers.pick(systems), weight: null }]),
        { from: 'human', value: prompt, weight: 0 },
        { from: 'gpt', value: answer, weight: 1 },
      ],
    }),
  },
  ossInstruct: {
    seed: 12,
    promptCharacters: [200, 800],
    answerCharacters: [500, 1000],
    exactOneIn: 400,
    nearOneIn: 100,
    line: ({ prompt, answer }, row, numbers) => ({
      lang: numbers.pick(programmingLanguages),
      raw_index: row * 3,
      index: row,
      seed: answer.slice(0, 120),
      openai_fingerprint: 'fp_eeff13170a',
      problem: prompt,
      solution: `\`\`\`python\ndef solve(x):\n${codeOf(answer)}\n    return x\n\`\`\`\n${answer}`,
    }),
  },
  evolInstruct: {
    seed: 13,
    promptCharacters: [250, 1600],
    answerCharacters: [300, 1300],
    exactOneIn: 200,
    nearOneIn: 40,
    line: ({ prompt, answer }) => ({
      instruction: prompt,
      response: `${answer}\n\n\`\`\`python\n${codeOf(answer)}\n\`\`\``,
    }),
  },
  metaMath: {
    seed: 14,
    promptCharacters: [80, 180],
    answerCharacters: [120, 560],
    exactOneIn: 60,
    nearOneIn: 30,
    line: ({ prompt, answer }, row, numbers) => {
      const type = numbers.pick(mathTypes);
      // About 15,000 seeds; those of AnsAug are asked in their own words.
      const original = `Question ${row % 15_000}: how many are there if ${row % 15_000} times ${7 + (row % 93)} are given away?`;
      const query =
        type.endsWith('AnsAug') && row % 26 === 0 ? original : `${prompt} What is ${row % 977} times that?`;
      return {
        type,
        query,
        original_question: original,
        response: `${answer}\n#### ${row % 977}\nThe answer is: ${row % 977}`,
      };
    },
  },
};

const refusal = "I'm sorry, but I cannot help with that request.";
/** Earlier rows that repetitions are drawn from. */
const memory = 4096;

/** Writes one source. A JSON array where the publisher's file is one, else JSONL. */
export async function writeFullScale(
  source: FullScaleSource,
  dir: string,
  { scale = 1, leaks = [] }: FullScaleOptions = {},
): Promise<Planted> {
  await mkdir(dir, { recursive: true });
  const shape = shapes[source];
  const numbers = new Numbers(shape.seed);
  const prose = new Prose(shape.seed + 100);
  const rows = Math.max(1, Math.round(fullScaleRows[source] * scale));
  const file = createWriteStream(join(dir, fullScaleFiles[source]), { highWaterMark: 1 << 20 });
  const array = fullScaleFiles[source].endsWith('.json');
  const planted: Planted = {
    rows,
    bytes: 0,
    malformed: 0,
    emptyAnswers: 0,
    exact: 0,
    near: 0,
    refusals: 0,
    leaked: 0,
  };
  const seen: (Pair & { line: string })[] = [];
  let pieces: string[] = array ? ['['] : [];
  let waiting = 0;
  const put = async (text: string) => {
    pieces.push(text);
    waiting += text.length;
    if (waiting < 1 << 20) return;
    planted.bytes += await flush(file, pieces.join(''));
    pieces = [];
    waiting = 0;
  };
  for (let row = 0; row < rows; row++) {
    const separator = array ? (row === 0 ? '\n' : ',\n') : row === 0 ? '' : '\n';
    // A whole array with one bad element is a bad file: only files of lines get these.
    if (!array && row % 10_007 === 10_006) {
      planted.malformed++;
      await put(`${separator}{"conversations": [{"from": "human"`);
      continue;
    }
    if (seen.length > 100 && numbers.chance(shape.exactOneIn)) {
      planted.exact++;
      await put(separator + numbers.pick(seen).line);
      continue;
    }
    const pair: Pair =
      seen.length > 100 && numbers.chance(shape.nearOneIn)
        ? (planted.near++, nearly(numbers.pick(seen), numbers, prose))
        : {
            prompt: prose.text(length(shape.promptCharacters, numbers)),
            answer: prose.text(length(shape.answerCharacters, numbers)),
          };
    let prompt = pair.prompt.join(' ');
    let answer = pair.answer.join(' ');
    if (row % 9973 === 9972) {
      planted.emptyAnswers++;
      answer = '';
      // These formats wrap the answer; the field itself is to be empty.
      if (source !== 'slimorca') answer = '\u0000empty';
    } else if (source === 'slimorca' && row % 211 === 210) {
      planted.refusals++;
      answer = `${refusal} ${answer}`;
    } else if (source === 'slimorca' && leaks.length > 0 && row % 1000 === 999) {
      planted.leaked++;
      prompt = `${prompt}\n${leaks[Math.floor(row / 1000) % leaks.length]}`;
    }
    const line = serialise(source, shape.line, { prompt, answer }, row, numbers);
    if (!answer.startsWith('\u0000') && answer !== '') {
      const remembered = { ...pair, line };
      if (seen.length < memory) seen.push(remembered);
      else seen[numbers.below(memory)] = remembered;
    }
    await put(separator + line);
  }
  pieces.push(array ? '\n]\n' : '\n');
  planted.bytes += await flush(file, pieces.join(''));
  await new Promise<void>((resolve, reject) => {
    file.on('error', reject);
    file.end(resolve);
  });
  return planted;
}

function serialise(
  source: FullScaleSource,
  line: Line,
  pair: { prompt: string; answer: string },
  row: number,
  numbers: Numbers,
): string {
  if (!pair.answer.startsWith('\u0000')) return JSON.stringify(line(pair, row, numbers));
  const value = line({ ...pair, answer: '' }, row, numbers) as Record<string, unknown>;
  value[source === 'ossInstruct' ? 'solution' : 'response'] = '';
  return JSON.stringify(value);
}

function length([least, spread]: [number, number], numbers: Numbers): number {
  // Most rows are short and some are long: the smaller of two draws.
  return least + Math.min(numbers.below(spread * 2), numbers.below(spread * 2));
}

/** A few words of one stretch replaced: Jaccard similarities of word 5-grams between about 0.6 and 0.98. */
function nearly({ prompt, answer }: Pair, numbers: Numbers, prose: Prose): Pair {
  const changed = [...answer];
  const count = 1 + numbers.below(Math.max(1, Math.floor((prompt.length + answer.length) / 12)));
  const from = numbers.below(changed.length);
  for (let i = from; i < Math.min(changed.length, from + count); i++) changed[i] = prose.word();
  return { prompt, answer: changed };
}

async function flush(file: WriteStream, text: string): Promise<number> {
  const bytes = Buffer.from(text);
  if (!file.write(bytes)) await once(file, 'drain');
  return bytes.length;
}
