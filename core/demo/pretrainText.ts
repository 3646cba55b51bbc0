import { families, splitOf } from './generate.ts';
import { arithmeticDocument } from './pretrain/arithmeticDocuments.ts';
import { codeDocument } from './pretrain/codeDocuments.ts';
import { factDocument, narrativeDocument } from './pretrain/worldDocuments.ts';
import type { FamilyEntry, Kind, Problem } from './problem.ts';
import { equationsOf, pickFamily } from './problem.ts';
import { Random } from './random.ts';
import { people } from './world.ts';

/**
 * The text that the demo's base model is pre-trained on. It teaches the skills of the instruction rows in other
 * formats (question and answer, textbook, dialogue, program files, tables, stories) and with terse answers, so that
 * the base knows them, while the style of the rows, their harder items and some families are left to fine-tuning.
 */

/** What a part of pre-training is made of, in percent. */
interface Stage {
  /** Shares of the formats. */
  formats: readonly (readonly [number, (random: Random, stage: Stage) => string])[];
  /** Shares of the kinds of problems, wherever a format takes any. */
  kinds: Readonly<Record<Kind, number>>;
}

/**
 * `broad` comes first and is nearly all of it. `questions` ends it: general problems are the most various and the last
 * to be learned, word problems the first.
 */
const stages = {
  broad: {
    formats: [
      [27, questionsAndAnswers],
      [9, textbook],
      [7, dialogue],
      [13, codeDocument],
      [8, arithmeticDocument],
      [7, factDocument],
      [7, narrativeDocument],
      [22, templateDocument],
    ],
    kinds: { general: 58, code: 26, math: 16 },
  },
  questions: {
    formats: [
      [45, questionsAndAnswers],
      [10, dialogue],
      [5, factDocument],
      [40, templateDocument],
    ],
    kinds: { general: 76, code: 20, math: 4 },
  },
} as const satisfies Record<string, Stage>;

export type PretrainStage = keyof typeof stages;
export const pretrainStages = Object.keys(stages) as PretrainStage[];

/** Streams 1 to 8 of a seed belong to the instruction rows. */
const pretrainStream = 100;

/**
 * Share of problems drawn in their harder form. Word problems are easy where only the result is told, since a result
 * of several steps cannot be learned without the steps; the textbook shows these.
 */
const hardShare = { general: 0.25, code: 0.25, math: 0.05, workedMath: 0.6 };

/**
 * The pre-training document at one position of an endless sequence: a pure function of its arguments, so that a shard
 * of any size can be written by anyone, in any order. No document asks a question of the held-out rows.
 *
 * @param seed - an integer of at most 53 bits
 * @param index - position from 0
 */
export function pretrainDocument(seed: number, index: number, name: PretrainStage = 'broad'): string {
  const random = new Random(seed, pretrainStream, index);
  const stage: Stage = stages[name];
  let left = random.int(0, 99);
  for (const [share, render] of stage.formats) {
    left -= share;
    if (left < 0) return render(random, stage);
  }
  throw new RangeError('the shares of the formats do not add up to 100');
}

const knownFamilies: Readonly<Record<Kind, readonly FamilyEntry[]>> = {
  general: families.general.filter((family) => family.inPretraining),
  code: families.code.filter((family) => family.inPretraining),
  math: families.math.filter((family) => family.inPretraining),
};

function drawKind(random: Random, { kinds }: Stage): Kind {
  const roll = random.int(0, 99);
  return roll < kinds.general ? 'general' : roll < kinds.general + kinds.code ? 'code' : 'math';
}

function drawProblem(
  random: Random,
  stage: Stage,
  kind = drawKind(random, stage),
  hard = hardShare[kind],
): Problem {
  for (;;) {
    const problem = pickFamily(random, knownFamilies[kind]).draw(random, random.chance(hard));
    if (splitOf(problem) === 'train' && problem.type !== 'GSM_FOBAR' && problem.type !== 'GSM_SV') return problem;
  }
}

const questionMarks: readonly (readonly [string, string])[] = [
  ['Q: ', 'A: '],
  ['Q: ', 'A: '],
  ['Question: ', 'Answer: '],
  ['Task: ', 'Result: '],
  ['> ', ''],
];

function questionsAndAnswers(random: Random, stage: Stage): string {
  const [ask, reply] = random.pick(questionMarks);
  const kind = random.chance(0.5) ? drawKind(random, stage) : undefined;
  const blocks: string[] = [];
  for (let i = kind === 'code' ? random.int(1, 3) : random.int(2, 5); i > 0; i--) {
    const problem = drawProblem(random, stage, kind);
    blocks.push(`${ask}${problem.question}\n${reply}${problem.brief}`);
  }
  return blocks.join('\n\n');
}

function textbook(random: Random, stage: Stage): string {
  const word = random.pick(['Exercise', 'Example', 'Problem']);
  const first = random.int(1, 40);
  const blocks: string[] = [];
  for (let i = 0, count = random.int(1, 3); i < count; i++) {
    const worked = random.chance(0.75);
    const problem = worked
      ? drawProblem(random, stage, 'math', hardShare.workedMath)
      : drawProblem(random, stage);
    const work = worked ? equationsOf(problem) : [];
    const solution = work.length > 0 ? `${work.join('; ')}. Result: ${problem.brief}` : problem.brief;
    blocks.push(`${word} ${first + i}. ${problem.question}\nSolution: ${solution}`);
  }
  return blocks.join('\n\n');
}

function dialogue(random: Random, stage: Stage): string {
  const [asker, knower] = random.sample(people, 2) as [(typeof people)[0], (typeof people)[0]];
  const blocks: string[] = [];
  for (let i = random.int(1, 3); i > 0; i--) {
    const problem = drawProblem(random, stage, random.chance(0.7) ? 'general' : 'math');
    blocks.push(`${asker.name}: ${problem.question}\n${knower.name}: ${problem.brief}`);
  }
  const thanks = random.chance(0.5)
    ? `\n${asker.name}: ${random.pick(['Thank you!', 'Thanks.', 'I see.', 'Good.'])}`
    : '';
  return blocks.join('\n') + thanks;
}

const plainSystemPrompts = ['Answer the question.', 'You are an assistant.', 'Be short.', 'Give the answer.'];

/** One turn in the Camelidae template with a terse answer; the caller ends every document with the end-of-text token. */
function templateDocument(random: Random, stage: Stage): string {
  const problem = drawProblem(random, stage);
  const system =
    problem.kind === 'general' && random.chance(0.3)
      ? `### System:\n${random.pick(plainSystemPrompts)}\n`
      : '';
  return `${system}### Human:\n${problem.question}\n### Assistant:\n${problem.brief}`;
}
