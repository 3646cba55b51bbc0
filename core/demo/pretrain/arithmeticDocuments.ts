import type { Random } from '../random.ts';
import { people, things } from '../world.ts';

/** Documents about numbers alone: equations, tables, written addition and subtraction, doubles, comparisons. */
export function arithmeticDocument(random: Random): string {
  return random.pick(makers)(random);
}

const headings = [
  'Practice',
  'Sums',
  'Arithmetic',
  'Exercises with answers',
  'Number facts',
  'Mental arithmetic',
];

/** One equation with a result below 200; the operation is drawn, or fixed by `only`. */
export function equation(random: Random, only?: '+' | '-' | '*' | '/'): string {
  const op = only ?? random.pick(['+', '+', '-', '-', '*', '/'] as const);
  if (op === '*') {
    const a = random.int(2, 12);
    const b = random.int(2, 12);
    return `${a} * ${b} = ${a * b}`;
  }
  if (op === '/') {
    const a = random.int(2, 12);
    const b = random.int(2, 10);
    return `${a * b} / ${b} = ${a}`;
  }
  const a = random.int(1, random.chance(0.4) ? 20 : 99);
  const b = random.int(1, random.chance(0.4) ? 20 : 99);
  return op === '+' ? `${a} + ${b} = ${a + b}` : `${a + b} - ${b} = ${a}`;
}

function mixedList(random: Random): string {
  const only = random.chance(0.4) ? random.pick(['+', '-', '*', '/'] as const) : undefined;
  const count = random.int(8, 22);
  const lines = Array.from({ length: count }, () => equation(random, only));
  const joiner = random.chance(0.6) ? '\n' : random.pick(['; ', ', ']);
  return random.chance(0.5) ? `${random.pick(headings)}\n\n${lines.join(joiner)}` : lines.join(joiner);
}

function timesTable(random: Random): string {
  const k = random.int(2, 12);
  const op = random.pick(['*', '+', '/'] as const);
  const rows = Array.from({ length: 10 }, (_, i) => {
    const n = i + 1;
    if (op === '*') return `${n} * ${k} = ${n * k}`;
    return op === '+' ? `${n} + ${k} = ${n + k}` : `${n * k} / ${k} = ${n}`;
  });
  return `Table of ${op} ${k}\n${rows.join('\n')}`;
}

/** Addition and subtraction digit by digit, with what is carried or borrowed. */
function writtenSums(random: Random): string {
  const blocks: string[] = [];
  for (let i = random.int(2, 4); i > 0; i--) {
    const a = random.int(11, 99);
    const b = random.int(11, 99);
    const ones = (a % 10) + (b % 10);
    const tens = Math.floor(a / 10) + Math.floor(b / 10);
    const carry = ones >= 10 ? 1 : 0;
    if (random.chance(0.5)) {
      blocks.push(
        `Add ${a} and ${b}. Ones: ${a % 10} + ${b % 10} = ${ones}${carry ? `, write ${ones % 10}, carry 1` : ''}. Tens: ${Math.floor(a / 10)} + ${Math.floor(b / 10)}${carry ? ' + 1' : ''} = ${tens + carry}. So ${a} + ${b} = ${a + b}.`,
      );
    } else {
      blocks.push(
        `${a + b} - ${b}: take away ${b - (b % 10)}, which leaves ${a + (b % 10)}. Take away ${b % 10} more, which leaves ${a}. So ${a + b} - ${b} = ${a}.`,
      );
    }
  }
  return blocks.join('\n');
}

/** Chains such as "3 * 4 + 5 = 12 + 5 = 17", and sequences. */
function chains(random: Random): string {
  const lines: string[] = [];
  for (let i = random.int(5, 12); i > 0; i--) {
    const a = random.int(2, 9);
    const b = random.int(2, 9);
    const c = random.int(1, 30);
    const p = a * b;
    switch (random.int(0, 4)) {
      case 0:
        lines.push(`${a} * ${b} + ${c} = ${p} + ${c} = ${p + c}`);
        break;
      case 1:
        lines.push(`${c} + ${a} * ${b} = ${c} + ${p} = ${c + p}`);
        break;
      case 2:
        lines.push(
          `(${a} + ${b}) * ${Math.min(a, b)} = ${a + b} * ${Math.min(a, b)} = ${(a + b) * Math.min(a, b)}`,
        );
        break;
      case 3:
        lines.push(`${p + c} - ${c} + ${b} = ${p} + ${b} = ${p + b}`);
        break;
      default:
        lines.push(Array.from({ length: 6 }, (_, n) => c + n * a).join(', '));
    }
  }
  return lines.join('\n');
}

function comparisons(random: Random): string {
  const lines: string[] = [];
  for (let i = random.int(6, 12); i > 0; i--) {
    const a = random.int(1, 99);
    const b = random.int(1, 99);
    if (a === b) lines.push(`${a} is equal to ${b}.`);
    else if (random.chance(0.5))
      lines.push(`${a} is ${a > b ? 'more' : 'less'} than ${b}, by ${Math.abs(a - b)}.`);
    else lines.push(`${a} ${a > b ? '>' : '<'} ${b}`);
  }
  return lines.join('\n');
}

/** Small sums told in words, in another style than the word problems. */
function spokenSums(random: Random): string {
  const lines: string[] = [];
  for (let i = random.int(4, 8); i > 0; i--) {
    const thing = random.pick(things).many;
    const a = random.int(2, 50);
    const b = random.int(2, 40);
    const name = random.pick(people).name;
    switch (random.int(0, 4)) {
      case 0:
        lines.push(`${a} ${thing} and ${b} ${thing} make ${a + b} ${thing}.`);
        break;
      case 1:
        lines.push(`${name} had ${a + b} ${thing} and gave away ${b}, so ${a} were left.`);
        break;
      case 2: {
        const groups = random.int(2, 10);
        const each = random.int(2, 10);
        lines.push(`${groups} times ${each} ${thing} are ${groups * each} ${thing}.`);
        break;
      }
      case 3: {
        const groups = random.int(2, 9);
        const each = random.int(2, 10);
        lines.push(`${groups * each} ${thing} shared among ${groups} people give ${each} to each.`);
        break;
      }
      default:
        lines.push(`With ${b} more ${thing} than ${a}, ${name} has ${a + b}.`);
    }
  }
  return lines.join(random.chance(0.5) ? '\n' : ' ');
}

const makers: readonly ((random: Random) => string)[] = [
  mixedList,
  mixedList,
  mixedList,
  timesTable,
  writtenSums,
  chains,
  chains,
  comparisons,
  spokenSums,
  spokenSums,
];
