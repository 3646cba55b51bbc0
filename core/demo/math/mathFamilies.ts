import type { FamilyEntry, MathType, Problem } from '../problem.ts';
import type { Random } from '../random.ts';
import { people, things } from '../world.ts';
import { solveBackward, solveForward, storyValues, tellStory } from './story.ts';
import { storyMakers } from './stories.ts';

/** Families of arithmetic word problems, in the shapes of MetaMathQA. */
export const mathFamilies: readonly FamilyEntry[] = [
  ...storyMakers.map(({ task, weight, maxSteps, make }): FamilyEntry => ({
    task,
    weight: weight * 2,
    inPretraining: true,
    draw: (random, hard) => {
      const steps = hard ? random.int(2, Math.max(2, maxSteps)) : 1;
      return storyProblem(random, task, Math.min(steps, maxSteps), hard, make(random, steps, hard ? 90 : 50));
    },
  })),
  { task: 'expression', weight: 6, inPretraining: true, draw: expressionProblem },
  { task: 'compare', weight: 6, inPretraining: true, draw: compareProblem },
];

const forwardCloses = ['The answer is: ', 'The answer is: ', '#### '];

function closing(random: Random, value: number): string {
  return random.pick(forwardCloses).startsWith('####')
    ? `#### ${value}\nThe answer is: ${value}`
    : `The answer is: ${value}`;
}

function storyProblem(
  random: Random,
  task: string,
  steps: number,
  hard: boolean,
  story: ReturnType<(typeof storyMakers)[0]['make']>,
): Problem {
  const values = storyValues(story);
  const result = values[values.length - 1] as number;
  const originalQuestion = `${tellStory(story, 0)} ${story.ask[0]}`;
  const roll = random.int(0, 99);
  const type: MathType =
    roll < 40 ? 'GSM_AnsAug' : roll < 72 || !hard ? 'GSM_Rephrased' : roll < 86 ? 'GSM_FOBAR' : 'GSM_SV';
  const common = { kind: 'math' as const, task, type, originalQuestion, group: originalQuestion };
  if (type === 'GSM_AnsAug' || type === 'GSM_Rephrased') {
    const question = type === 'GSM_AnsAug' ? originalQuestion : `${tellStory(story, 1)} ${story.ask[1]}`;
    return {
      ...common,
      easy: steps === 1,
      question,
      brief: String(result),
      answer: `${solveForward(story)}\n${closing(random, result)}`,
      check: { by: 'number', value: result },
    };
  }
  const unknown = random.int(0, story.steps.length);
  const value = unknown === 0 ? story.start : (story.steps[unknown - 1]?.operand ?? 0);
  const told = tellStory(story, 0, unknown);
  const question =
    type === 'GSM_FOBAR'
      ? `${told} ${story.ask[0]} If we know the answer to the above question is ${result}, what is the value of unknown variable x?`
      : `${told} ${story.declare(result)}. What is the value of unknown variable x?`;
  return {
    ...common,
    easy: false,
    question,
    brief: String(value),
    answer: `We know that the result is ${result}.\n${solveBackward(story, unknown)}\n${closing(random, value)}`,
    check: { by: 'number', value },
  };
}

/** A bare expression of one operation, or of two with the rule of precedence. */
function expressionProblem(random: Random, hard: boolean): Problem {
  let text: string;
  let value: number;
  let work: string;
  const a = random.int(2, hard ? 60 : 40);
  const b = random.int(2, hard ? 60 : 40);
  const c = random.int(2, 9);
  const d = random.int(2, 9);
  const shape = hard ? random.int(3, 6) : random.int(0, 2);
  if (shape === 0) {
    [text, value] = [`${a} + ${b}`, a + b];
    work = `We add the two numbers: ${a} + ${b} = ${value}.`;
  } else if (shape === 1) {
    const high = a + b;
    [text, value] = [`${high} - ${b}`, a];
    work = `We take ${b} away from ${high}: ${high} - ${b} = ${a}.`;
  } else if (shape === 2) {
    [text, value] = [`${c} * ${d}`, c * d];
    work = `We multiply the two numbers: ${c} * ${d} = ${value}.`;
  } else if (shape === 3) {
    [text, value] = [`${c} * ${d} + ${a}`, c * d + a];
    work = `First we multiply: ${c} * ${d} = ${c * d}.\nThen we add: ${c * d} + ${a} = ${value}.`;
  } else if (shape === 4) {
    [text, value] = [`${a} + ${c} * ${d}`, a + c * d];
    work = `First we multiply: ${c} * ${d} = ${c * d}.\nThen we add: ${a} + ${c * d} = ${value}.`;
  } else if (shape === 5) {
    const low = Math.min(c, d) + 1;
    [text, value] = [`(${c} + ${d}) * ${low}`, (c + d) * low];
    work = `First the brackets: ${c} + ${d} = ${c + d}.\nThen we multiply: ${c + d} * ${low} = ${value}.`;
  } else {
    [text, value] = [`${a + b} - ${b} + ${c}`, a + c];
    work = `First we subtract: ${a + b} - ${b} = ${a}.\nThen we add: ${a} + ${c} = ${value}.`;
  }
  const originalQuestion = `What is ${text}?`;
  const type: MathType = random.chance(0.5) ? 'GSM_AnsAug' : 'GSM_Rephrased';
  const person = random.pick(people).name;
  const question =
    type === 'GSM_AnsAug'
      ? originalQuestion
      : random.pick([
          `Calculate ${text}.`,
          `Find the value of ${text}.`,
          `Compute ${text} and give the result.`,
          `${person} wants to know what ${text} is. Can you help?`,
        ]);
  return {
    kind: 'math',
    task: 'expression',
    easy: !hard,
    question,
    group: originalQuestion,
    brief: String(value),
    answer: `${work}\n${closing(random, value)}`,
    check: { by: 'number', value },
    type,
    originalQuestion,
  };
}

/** Two people, one relation: how many the other has, or how many both have together. */
function compareProblem(random: Random, hard: boolean): Problem {
  const [a, b] = random.sample(people, 2) as [(typeof people)[0], (typeof people)[0]];
  const thing = random.pick(things).many;
  const relation = random.int(0, 2);
  const start = relation === 2 ? random.int(2, 12) : random.int(6, 40);
  const operand =
    relation === 2 ? random.int(2, 4) : relation === 1 ? random.int(2, start - 2) : random.int(2, 30);
  const other = relation === 0 ? start + operand : relation === 1 ? start - operand : start * operand;
  const phrase = [
    `${operand} more ${thing} than ${a.name}`,
    `${operand} fewer ${thing} than ${a.name}`,
    `${operand} times as many ${thing} as ${a.name}`,
  ][relation] as string;
  const rephrased = [
    `If ${a.name} had ${operand} more ${thing}, ${a.name} would have as many as ${b.name}.`,
    `If ${a.name} gave away ${operand} ${thing}, ${a.name} would have as many as ${b.name}.`,
    `For every one of ${a.name}'s ${thing}, ${b.name} has ${operand}.`,
  ][relation] as string;
  const sign = '+-*'.charAt(relation);
  const total = start + other;
  const value = hard ? total : other;
  const originalQuestion = `${a.name} has ${start} ${thing}. ${b.name} has ${phrase}. ${hard ? `How many ${thing} do they have together?` : `How many ${thing} does ${b.name} have?`}`;
  const type: MathType = random.chance(0.5) ? 'GSM_AnsAug' : 'GSM_Rephrased';
  const question =
    type === 'GSM_AnsAug'
      ? originalQuestion
      : `${a.name} owns ${start} ${thing}. ${rephrased} ${hard ? `What is the number of ${thing} that the two have in all?` : `What is the number of ${b.name}'s ${thing}?`}`;
  const lines = [`${b.name} has ${start} ${sign} ${operand} = ${other} ${thing}.`];
  if (hard) lines.push(`Together, ${a.name} and ${b.name} have ${start} + ${other} = ${total} ${thing}.`);
  return {
    kind: 'math',
    task: 'compare',
    easy: !hard,
    question,
    group: originalQuestion,
    brief: String(value),
    answer: `${lines.join('\n')}\n${closing(random, value)}`,
    check: { by: 'number', value },
    type,
    originalQuestion,
  };
}
