import type { Random } from '../random.ts';
import { colours, people, words } from '../world.ts';
import type { FunctionSpec } from './functionSpec.ts';

const numberNouns =
  'scores prices ages sizes points values numbers heights steps lengths costs marks weights totals levels'.split(
    ' ',
  );
const textNouns = 'names words cities colors fruits titles labels lines keys tags'.split(' ');
const oneNumber = 'n x number value size age price count'.split(' ');
const oneText = 'text name word title label line'.split(' ');

function drawNumbers(random: Random, count = random.int(3, 5)): number[] {
  return Array.from({ length: count }, () => random.int(1, 20));
}

function drawTexts(random: Random): string[] {
  return random.sample(random.chance(0.5) ? colours : words.slice(0, 60), random.int(2, 4));
}

/** One random function of the demo; the makers below are drawn with equal weight. */
export function drawFunctionSpec(random: Random, hard: boolean): FunctionSpec {
  return random.pick(hard ? hardMakers : easyMakers)(random);
}

type Maker = (random: Random) => FunctionSpec;

/** Functions of one or two numbers. */
function arithmetic(random: Random): FunctionSpec {
  const [a, b] = random.pick([
    ['a', 'b'],
    ['x', 'y'],
    ['left', 'right'],
    ['first', 'second'],
    ['width', 'height'],
    ['price', 'tax'],
  ] as const);
  const kind = random.pick([
    {
      verb: 'add',
      op: '+',
      does: `returns the sum of \`${a}\` and \`${b}\``,
      wrong: '-',
      explain: 'The + operator adds the two numbers.',
      f: (x: number, y: number) => x + y,
    },
    {
      verb: 'subtract',
      op: '-',
      does: `returns \`${a}\` minus \`${b}\``,
      wrong: '+',
      explain: 'The - operator takes the second number from the first.',
      f: (x: number, y: number) => x - y,
    },
    {
      verb: 'multiply',
      op: '*',
      does: `returns the product of \`${a}\` and \`${b}\``,
      wrong: '+',
      explain: 'The * operator multiplies the two numbers.',
      f: (x: number, y: number) => x * y,
    },
  ] as const);
  const body = `return ${a} ${kind.op} ${b}`;
  const bad = `return ${a} ${kind.wrong} ${b}`;
  return {
    name: random.pick([[kind.verb, 'two'], [kind.verb, 'numbers'], [kind.verb], [kind.verb, a, 'and', b]]),
    params: [a, b],
    does: kind.does,
    python: [body],
    javascript: [`${body};`],
    bug: { python: bad, javascript: `${bad};`, reason: `it uses ${kind.wrong} where ${kind.op} is needed` },
    explain: kind.explain,
    apply: kind.f as FunctionSpec['apply'],
    args: (r) => [r.int(2, 20), r.int(2, 20)],
    easy: true,
  };
}

/** A number and a constant. */
function withConstant(random: Random): FunctionSpec {
  const param = random.pick(oneNumber);
  const k = random.int(2, 20);
  const kind = random.pick([
    { name: ['add', String(k)], op: '+', does: `returns \`${param}\` plus ${k}`, f: (x: number) => x + k },
    { name: ['times', String(k)], op: '*', does: `returns \`${param}\` times ${k}`, f: (x: number) => x * k },
    { name: ['minus', String(k)], op: '-', does: `returns \`${param}\` minus ${k}`, f: (x: number) => x - k },
    {
      name: ['is', 'above', String(k)],
      op: '>',
      does: `tells whether \`${param}\` is greater than ${k}`,
      f: (x: number) => x > k,
    },
    {
      name: ['is', 'below', String(k)],
      op: '<',
      does: `tells whether \`${param}\` is less than ${k}`,
      f: (x: number) => x < k,
    },
  ] as const);
  const wrong = { '+': '-', '*': '+', '-': '+', '>': '<', '<': '>' }[kind.op];
  return {
    name: kind.name,
    params: [param],
    does: kind.does,
    python: [`return ${param} ${kind.op} ${k}`],
    javascript: [`return ${param} ${kind.op} ${k};`],
    bug: {
      python: `return ${param} ${wrong} ${k}`,
      javascript: `return ${param} ${wrong} ${k};`,
      reason: `it uses ${wrong} where ${kind.op} is needed`,
    },
    explain: `The function uses the ${kind.op} operator with the number ${k}.`,
    apply: kind.f as FunctionSpec['apply'],
    args: (r) => [r.int(2, 30)],
    easy: true,
  };
}

/** Every number of a list changed in one way. */
function mapNumbers(random: Random): FunctionSpec {
  const list = random.pick(numberNouns);
  const k = random.int(2, 12);
  const kind = random.pick([
    {
      verb: 'add_to',
      code: `x + ${k}`,
      wrong: `x - ${k}`,
      does: `returns a list with ${k} added to every number of \`${list}\``,
      f: (x: number) => x + k,
    },
    {
      verb: 'scale',
      code: `x * ${k}`,
      wrong: `x + ${k}`,
      does: `returns a list with every number of \`${list}\` multiplied by ${k}`,
      f: (x: number) => x * k,
    },
    {
      verb: 'lower',
      code: `x - ${k}`,
      wrong: `x + ${k}`,
      does: `returns a list with ${k} subtracted from every number of \`${list}\``,
      f: (x: number) => x - k,
    },
    {
      verb: 'double',
      code: 'x * 2',
      wrong: 'x + 2',
      does: `returns a list with every number of \`${list}\` doubled`,
      f: (x: number) => x * 2,
    },
    {
      verb: 'square',
      code: 'x * x',
      wrong: 'x + x',
      does: `returns a list with the square of every number of \`${list}\``,
      f: (x: number) => x * x,
    },
  ]);
  return {
    name: [...kind.verb.split('_'), list],
    params: [list],
    does: kind.does,
    python: [
      `return [${kind.code} for x in ${list}]`,
      `result = []\nfor x in ${list}:\n  result.append(${kind.code})\nreturn result`,
    ],
    javascript: [`return ${list}.map((x) => ${kind.code});`],
    bug: {
      python: `return [${kind.wrong} for x in ${list}]`,
      javascript: `return ${list}.map((x) => ${kind.wrong});`,
      reason: `it computes ${kind.wrong} where ${kind.code} is needed`,
    },
    explain: `For every x of the list, the new list holds ${kind.code}.`,
    apply: ((xs: number[]) => xs.map(kind.f)) as FunctionSpec['apply'],
    args: (r) => [drawNumbers(r)],
    easy: true,
  };
}

/** The numbers of a list that meet a condition. */
function filterNumbers(random: Random): FunctionSpec {
  const list = random.pick(numberNouns);
  const k = random.int(3, 15);
  const kind = random.pick([
    {
      name: ['keep', 'large', list],
      py: `x > ${k}`,
      js: `x > ${k}`,
      wrong: `x < ${k}`,
      does: `returns only the numbers of \`${list}\` that are greater than ${k}`,
      f: (x: number) => x > k,
    },
    {
      name: ['keep', 'small', list],
      py: `x < ${k}`,
      js: `x < ${k}`,
      wrong: `x > ${k}`,
      does: `returns only the numbers of \`${list}\` that are less than ${k}`,
      f: (x: number) => x < k,
    },
    {
      name: ['even', list],
      py: 'x % 2 == 0',
      js: 'x % 2 === 0',
      wrong: 'x % 2 == 1',
      does: `returns only the even numbers of \`${list}\``,
      f: (x: number) => x % 2 === 0,
    },
    {
      name: ['odd', list],
      py: 'x % 2 == 1',
      js: 'x % 2 === 1',
      wrong: 'x % 2 == 0',
      does: `returns only the odd numbers of \`${list}\``,
      f: (x: number) => x % 2 === 1,
    },
  ]);
  const wrongJs = kind.wrong.replace('==', '===');
  return {
    name: kind.name,
    params: [list],
    does: kind.does,
    python: [
      `return [x for x in ${list} if ${kind.py}]`,
      `result = []\nfor x in ${list}:\n  if ${kind.py}:\n    result.append(x)\nreturn result`,
    ],
    javascript: [`return ${list}.filter((x) => ${kind.js});`],
    bug: {
      python: `return [x for x in ${list} if ${kind.wrong}]`,
      javascript: `return ${list}.filter((x) => ${wrongJs});`,
      reason: `it keeps the wrong numbers`,
    },
    explain: `Only those x stay in the list for which ${kind.py} is true.`,
    apply: ((xs: number[]) => xs.filter(kind.f)) as FunctionSpec['apply'],
    args: (r) => [drawNumbers(r)],
    easy: true,
  };
}

/** One number out of a list. */
function reduceNumbers(random: Random): FunctionSpec {
  const list = random.pick(numberNouns);
  const kind = random.pick([
    {
      name: ['sum', 'of', list],
      py: [`return sum(${list})`, `total = 0\nfor x in ${list}:\n  total += x\nreturn total`],
      js: `return ${list}.reduce((total, x) => total + x, 0);`,
      badPy: `return max(${list})`,
      badJs: `return ${list}.reduce((total, x) => total - x, 0);`,
      does: `returns the sum of all numbers of \`${list}\``,
      reason: 'it does not add up the numbers',
      explain: 'All numbers of the list are added up.',
      f: (xs: number[]) => xs.reduce((t, x) => t + x, 0),
    },
    {
      name: ['largest', 'of', list],
      py: [`return max(${list})`],
      js: `return Math.max(...${list});`,
      badPy: `return min(${list})`,
      badJs: `return Math.min(...${list});`,
      does: `returns the largest number of \`${list}\``,
      reason: 'it looks for the smallest number',
      explain: 'The built-in max finds the largest number.',
      f: (xs: number[]) => Math.max(...xs),
    },
    {
      name: ['smallest', 'of', list],
      py: [`return min(${list})`],
      js: `return Math.min(...${list});`,
      badPy: `return max(${list})`,
      badJs: `return Math.max(...${list});`,
      does: `returns the smallest number of \`${list}\``,
      reason: 'it looks for the largest number',
      explain: 'The built-in min finds the smallest number.',
      f: (xs: number[]) => Math.min(...xs),
    },
    {
      name: ['count', list],
      py: [`return len(${list})`],
      js: `return ${list}.length;`,
      badPy: `return len(${list}) - 1`,
      badJs: `return ${list}.length - 1;`,
      does: `returns how many numbers are in \`${list}\``,
      reason: 'it counts one too few',
      explain: 'The length of the list is the number of its items.',
      f: (xs: number[]) => xs.length,
    },
    {
      name: ['first', 'of', list],
      py: [`return ${list}[0]`],
      js: `return ${list}[0];`,
      badPy: `return ${list}[1]`,
      badJs: `return ${list}[1];`,
      does: `returns the first number of \`${list}\``,
      reason: 'the first item has the index 0',
      explain: 'The first item has the index 0.',
      f: (xs: number[]) => xs[0] as number,
    },
    {
      name: ['last', 'of', list],
      py: [`return ${list}[-1]`],
      js: `return ${list}[${list}.length - 1];`,
      badPy: `return ${list}[0]`,
      badJs: `return ${list}[0];`,
      does: `returns the last number of \`${list}\``,
      reason: 'it returns the first item',
      explain: 'The last item is found from the end of the list.',
      f: (xs: number[]) => xs[xs.length - 1] as number,
    },
  ]);
  return {
    name: kind.name,
    params: [list],
    does: kind.does,
    python: kind.py,
    javascript: [kind.js],
    bug: { python: kind.badPy, javascript: kind.badJs, reason: kind.reason },
    explain: kind.explain,
    apply: kind.f as FunctionSpec['apply'],
    args: (r) => [drawNumbers(r)],
    easy: true,
  };
}

/** A text made from a text. */
function textFunction(random: Random): FunctionSpec {
  const text = random.pick(oneText);
  const word = random.pick(['Hello', 'Welcome', 'Goodbye', 'Thanks', 'Dear']);
  const k = random.int(2, 4);
  const kind = random.pick([
    {
      name: ['shout'],
      py: `return ${text}.upper()`,
      js: `return ${text}.toUpperCase();`,
      badPy: `return ${text}.lower()`,
      badJs: `return ${text}.toLowerCase();`,
      does: `returns \`${text}\` in capital letters`,
      reason: 'it makes the letters small',
      explain: 'The built-in method changes every letter to its capital form.',
      f: (s: string) => s.toUpperCase(),
    },
    {
      name: ['greet'],
      py: `return "${word}, " + ${text} + "!"`,
      js: `return "${word}, " + ${text} + "!";`,
      badPy: `return "${word}, " + "!"`,
      badJs: `return "${word}, " + "!";`,
      does: `returns the text "${word}, " followed by \`${text}\` and "!"`,
      reason: `it leaves out ${text}`,
      explain: 'The + operator joins the three texts.',
      f: (s: string) => `${word}, ${s}!`,
    },
    {
      name: ['length', 'of', text],
      py: `return len(${text})`,
      js: `return ${text}.length;`,
      badPy: `return len(${text}) + 1`,
      badJs: `return ${text}.length + 1;`,
      does: `returns the number of letters in \`${text}\``,
      reason: 'it counts one too many',
      explain: 'The length of a text is the number of its letters.',
      f: (s: string) => s.length,
    },
    {
      name: ['first', 'letter'],
      py: `return ${text}[0]`,
      js: `return ${text}[0];`,
      badPy: `return ${text}[1]`,
      badJs: `return ${text}[1];`,
      does: `returns the first letter of \`${text}\``,
      reason: 'the first letter has the index 0',
      explain: 'The first letter has the index 0.',
      f: (s: string) => s.charAt(0),
    },
    {
      name: ['repeat', text],
      py: `return ${text} * ${k}`,
      js: `return ${text}.repeat(${k});`,
      badPy: `return ${text} * ${k - 1}`,
      badJs: `return ${text}.repeat(${k - 1});`,
      does: `returns \`${text}\` repeated ${k} times`,
      reason: 'it repeats the text once too few',
      explain: `The text is written ${k} times in a row.`,
      f: (s: string) => s.repeat(k),
    },
    {
      name: ['reverse', text],
      py: `return ${text}[::-1]`,
      js: `return ${text}.split("").reverse().join("");`,
      badPy: `return ${text}[1:]`,
      badJs: `return ${text}.split("").join("");`,
      does: `returns \`${text}\` written backwards`,
      reason: 'it does not turn the text around',
      explain: 'The letters are taken from the last to the first.',
      f: (s: string) => [...s].reverse().join(''),
    },
  ]);
  return {
    name: kind.name,
    params: [text],
    does: kind.does,
    python: [kind.py],
    javascript: [kind.js],
    bug: { python: kind.badPy, javascript: kind.badJs, reason: kind.reason },
    explain: kind.explain,
    apply: kind.f as FunctionSpec['apply'],
    args: (r) => [r.chance(0.5) ? r.pick(people).name : r.pick(words)],
    easy: true,
  };
}

/** Lists of texts. */
function textList(random: Random): FunctionSpec {
  const list = random.pick(textNouns);
  const separator = random.pick([', ', '-', ' and ', '/']);
  const k = random.int(1, 3);
  const kind = random.pick([
    {
      name: ['join', list],
      py: `return "${separator}".join(${list})`,
      js: `return ${list}.join("${separator}");`,
      badPy: `return "".join(${list})`,
      badJs: `return ${list}.join("");`,
      does: `joins the texts of \`${list}\` with "${separator}" between them`,
      reason: 'it joins them with nothing between',
      explain: 'The built-in join puts the separator between the texts.',
      f: (xs: string[]) => xs.join(separator),
    },
    {
      name: ['first', list],
      py: `return ${list}[:${k}]`,
      js: `return ${list}.slice(0, ${k});`,
      badPy: `return ${list}[${k}:]`,
      badJs: `return ${list}.slice(${k});`,
      does: `returns the first ${k} of the \`${list}\``,
      reason: 'it leaves the first ones out',
      explain: `The slice ends before the index ${k}.`,
      f: (xs: string[]) => xs.slice(0, k),
    },
    {
      name: ['lengths', 'of', list],
      py: `return [len(x) for x in ${list}]`,
      js: `return ${list}.map((x) => x.length);`,
      badPy: `return [x for x in ${list}]`,
      badJs: `return ${list}.map((x) => x);`,
      does: `returns the length of every text of \`${list}\``,
      reason: 'it returns the texts and not their lengths',
      explain: 'For every text, the new list holds its length.',
      f: (xs: string[]) => xs.map((x) => x.length),
    },
    {
      name: ['reversed', list],
      py: `return ${list}[::-1]`,
      js: `return ${list}.slice().reverse();`,
      badPy: `return ${list}[:-1]`,
      badJs: `return ${list}.slice();`,
      does: `returns \`${list}\` in reverse order`,
      reason: 'it does not change the order',
      explain: 'The list is copied from its end to its start.',
      f: (xs: string[]) => xs.slice().reverse(),
    },
    {
      name: ['sorted', list],
      py: `return sorted(${list})`,
      js: `return ${list}.slice().sort();`,
      badPy: `return ${list}`,
      badJs: `return ${list}.slice();`,
      does: `returns \`${list}\` in alphabetical order`,
      reason: 'it does not sort the list',
      explain: 'The built-in sort puts the texts in alphabetical order.',
      f: (xs: string[]) => xs.slice().sort(),
    },
  ]);
  return {
    name: kind.name,
    params: [list],
    does: kind.does,
    python: [kind.py],
    javascript: [kind.js],
    bug: { python: kind.badPy, javascript: kind.badJs, reason: kind.reason },
    explain: kind.explain,
    apply: kind.f as FunctionSpec['apply'],
    args: (r) => [drawTexts(r)],
    easy: true,
  };
}

/** A choice between two texts. */
function choose(random: Random): FunctionSpec {
  const param = random.pick(oneNumber);
  const k = random.int(5, 30);
  const [yes, no] = random.pick([
    ['big', 'small'],
    ['high', 'low'],
    ['old', 'young'],
    ['warm', 'cold'],
    ['pass', 'fail'],
    ['open', 'closed'],
    ['many', 'few'],
  ] as const);
  return {
    name: random.pick([
      ['describe', param],
      ['label', param],
      ['check', param],
    ]),
    params: [param],
    does: `returns "${yes}" if \`${param}\` is greater than ${k} and "${no}" otherwise`,
    python: [
      `if ${param} > ${k}:\n  return "${yes}"\nreturn "${no}"`,
      `return "${yes}" if ${param} > ${k} else "${no}"`,
    ],
    javascript: [
      `return ${param} > ${k} ? "${yes}" : "${no}";`,
      `if (${param} > ${k}) {\n  return "${yes}";\n}\nreturn "${no}";`,
    ],
    bug: {
      python: `if ${param} < ${k}:\n  return "${yes}"\nreturn "${no}"`,
      javascript: `return ${param} < ${k} ? "${yes}" : "${no}";`,
      reason: 'it uses < where > is needed',
    },
    explain: `The condition compares ${param} with ${k} and picks one of the two texts.`,
    apply: ((x: number) => (x > k ? yes : no)) as FunctionSpec['apply'],
    args: (r) => [r.int(1, 40)],
    easy: false,
  };
}

/** A filter and a change, or a filter and a count. */
function filterThen(random: Random): FunctionSpec {
  const list = random.pick(numberNouns);
  const k = random.int(3, 12);
  const m = random.int(2, 5);
  const kind = random.pick([
    {
      name: ['count', 'large', list],
      py: [`return len([x for x in ${list} if x > ${k}])`, `return sum(1 for x in ${list} if x > ${k})`],
      js: `return ${list}.filter((x) => x > ${k}).length;`,
      badPy: `return len([x for x in ${list} if x < ${k}])`,
      badJs: `return ${list}.filter((x) => x < ${k}).length;`,
      does: `returns how many numbers of \`${list}\` are greater than ${k}`,
      f: (xs: number[]) => xs.filter((x) => x > k).length,
    },
    {
      name: ['scale', 'large', list],
      py: [`return [x * ${m} for x in ${list} if x > ${k}]`],
      js: `return ${list}.filter((x) => x > ${k}).map((x) => x * ${m});`,
      badPy: `return [x * ${m} for x in ${list} if x < ${k}]`,
      badJs: `return ${list}.filter((x) => x < ${k}).map((x) => x * ${m});`,
      does: `takes the numbers of \`${list}\` that are greater than ${k} and returns them multiplied by ${m}`,
      f: (xs: number[]) => xs.filter((x) => x > k).map((x) => x * m),
    },
    {
      name: ['sum', 'large', list],
      py: [`return sum(x for x in ${list} if x > ${k})`],
      js: `return ${list}.filter((x) => x > ${k}).reduce((total, x) => total + x, 0);`,
      badPy: `return sum(x for x in ${list} if x < ${k})`,
      badJs: `return ${list}.filter((x) => x < ${k}).reduce((total, x) => total + x, 0);`,
      does: `returns the sum of those numbers of \`${list}\` that are greater than ${k}`,
      f: (xs: number[]) => xs.filter((x) => x > k).reduce((t, x) => t + x, 0),
    },
  ]);
  return {
    name: kind.name,
    params: [list],
    does: kind.does,
    python: kind.py,
    javascript: [kind.js],
    bug: { python: kind.badPy, javascript: kind.badJs, reason: 'it uses < where > is needed' },
    explain: `First only the numbers above ${k} are kept, and then the result is made from them.`,
    apply: kind.f as FunctionSpec['apply'],
    args: (r) => [drawNumbers(r)],
    easy: false,
  };
}

const easyMakers: readonly Maker[] = [
  arithmetic,
  withConstant,
  mapNumbers,
  filterNumbers,
  reduceNumbers,
  textFunction,
  textList,
];
const hardMakers: readonly Maker[] = [choose, filterThen, mapNumbers, filterNumbers, textList];
