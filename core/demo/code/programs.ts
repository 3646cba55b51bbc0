import type { Language } from '../problem.ts';
import type { Random } from '../random.ts';
import { colours, people, words } from '../world.ts';

/** A program of one to six lines, what it prints, and how one comes to it. */
export interface Program {
  lines: readonly string[];
  output: string;
  trace: string;
}

const variables = 'a b c x y n total count score price age size points steps'.split(' ');

/** One random program; `hard` gives loops and conditions with more steps. */
export function drawProgram(random: Random, language: Language, hard: boolean): Program {
  return random.pick(hard ? hardPrograms : easyPrograms)(random, language);
}

function assign(language: Language, name: string, value: string, constant = false): string {
  return language === 'python' ? `${name} = ${value}` : `${constant ? 'const' : 'let'} ${name} = ${value};`;
}

function print(language: Language, value: string): string {
  return language === 'python' ? `print(${value})` : `console.log(${value});`;
}

function end(language: Language): string {
  return language === 'python' ? '' : ';';
}

function sumOfTwo(random: Random, language: Language): Program {
  const [a, b] = random.sample(variables, 2) as [string, string];
  const left = random.int(2, 40);
  const right = random.int(2, 30);
  const op = random.pick(['+', '-', '*'] as const);
  const [l, r] =
    op === '*' ? [(left % 9) + 2, (right % 9) + 2] : op === '-' ? [left + right, right] : [left, right];
  const result = op === '+' ? l + r : op === '-' ? l - r : l * r;
  return {
    lines: [
      assign(language, a, String(l), true),
      assign(language, b, String(r), true),
      print(language, `${a} ${op} ${b}`),
    ],
    output: String(result),
    trace: `The variable ${a} is ${l} and ${b} is ${r}. So ${a} ${op} ${b} is ${l} ${op} ${r} = ${result}.`,
  };
}

function changes(random: Random, language: Language): Program {
  const name = random.pick(variables);
  let value = random.int(2, 20);
  const lines = [assign(language, name, String(value))];
  const notes = [`At first ${name} is ${value}.`];
  for (let i = 0; i < 2; i++) {
    const op = value < 10 && random.chance(0.4) ? '*' : value > 6 && random.chance(0.4) ? '-' : '+';
    const k = op === '*' ? random.int(2, 5) : op === '-' ? random.int(1, value - 2) : random.int(2, 15);
    const next = op === '*' ? value * k : op === '-' ? value - k : value + k;
    lines.push(
      random.chance(0.5)
        ? `${name} = ${name} ${op} ${k}${end(language)}`
        : `${name} ${op}= ${k}${end(language)}`,
    );
    notes.push(`Then it becomes ${value} ${op} ${k} = ${next}.`);
    value = next;
  }
  lines.push(print(language, name));
  return { lines, output: String(value), trace: notes.join(' ') };
}

function listItem(random: Random, language: Language): Program {
  const numbers = random.chance(0.5);
  const items = numbers
    ? Array.from({ length: random.int(3, 5) }, () => String(random.int(1, 40)))
    : random.sample(random.chance(0.5) ? colours : words.slice(0, 50), random.int(3, 4));
  const name = random.pick(
    numbers ? ['numbers', 'values', 'scores', 'xs'] : ['words', 'items', 'names', 'things'],
  );
  const written = `[${items.map((item) => (numbers ? item : `"${item}"`)).join(', ')}]`;
  const lines = [assign(language, name, written, true)];
  if (random.chance(0.3)) {
    lines.push(print(language, language === 'python' ? `len(${name})` : `${name}.length`));
    return { lines, output: String(items.length), trace: `The list has ${items.length} items.` };
  }
  const at = random.int(0, items.length - 1);
  const fromEnd = language === 'python' && random.chance(0.25);
  lines.push(print(language, `${name}[${fromEnd ? at - items.length : at}]`));
  const item = items[at] as string;
  return {
    lines,
    output: item,
    trace: fromEnd
      ? `A negative index counts from the end of the list, so -1 is the last item. The item at ${at - items.length} is ${item}.`
      : `The first item has the index 0, so the item at index ${at} is ${item}.`,
  };
}

function textProgram(random: Random, language: Language): Program {
  const name = random.pick(['name', 'word', 'text', 'title']);
  const value = random.chance(0.5) ? random.pick(people).name : random.pick(words);
  const greeting = random.pick(['Hello', 'Hi', 'Bye', 'Dear', 'Welcome']);
  const lines = [assign(language, name, `"${value}"`, true)];
  switch (random.int(0, 2)) {
    case 0:
      lines.push(print(language, `"${greeting}, " + ${name}`));
      return {
        lines,
        output: `${greeting}, ${value}`,
        trace: `The + operator joins "${greeting}, " and "${value}".`,
      };
    case 1:
      lines.push(print(language, language === 'python' ? `len(${name})` : `${name}.length`));
      return {
        lines,
        output: String(value.length),
        trace: `The text "${value}" has ${value.length} letters: ${[...value].join(', ')}.`,
      };
    default: {
      const k = random.int(2, 3);
      lines.push(print(language, language === 'python' ? `${name} * ${k}` : `${name}.repeat(${k})`));
      return { lines, output: value.repeat(k), trace: `The text "${value}" is written ${k} times in a row.` };
    }
  }
}

function condition(random: Random, language: Language): Program {
  const name = random.pick(variables);
  const value = random.int(1, 40);
  const limit = random.int(1, 40);
  const op = random.chance(0.5) ? '>' : '<';
  const [yes, no] = random.pick([
    ['yes', 'no'],
    ['big', 'small'],
    ['go', 'stop'],
    ['hot', 'cold'],
    ['left', 'right'],
    ['open', 'closed'],
  ] as const);
  const holds = op === '>' ? value > limit : value < limit;
  const output = holds ? yes : no;
  const lines =
    language === 'python'
      ? [
          `${name} = ${value}`,
          `if ${name} ${op} ${limit}:`,
          `    print("${yes}")`,
          'else:',
          `    print("${no}")`,
        ]
      : [
          `const ${name} = ${value};`,
          `if (${name} ${op} ${limit}) {`,
          `  console.log("${yes}");`,
          '} else {',
          `  console.log("${no}");`,
          '}',
        ];
  return {
    lines,
    output,
    trace: `The condition ${value} ${op} ${limit} is ${holds ? 'true' : 'false'}, so the ${holds ? 'first' : 'second'} branch runs.`,
  };
}

function loopSum(random: Random, language: Language): Program {
  const total = random
    .pick(['total', 'sum_', 'result', 'acc'])
    .replace('_', language === 'python' ? '_all' : 'All');
  const count = random.int(2, 5);
  const constant = random.chance(0.5);
  const k = random.int(2, 9);
  let value = 0;
  const notes: string[] = [];
  for (let i = 0; i < count; i++) {
    const next = value + (constant ? k : i);
    notes.push(`${value} + ${constant ? k : i} = ${next}`);
    value = next;
  }
  const lines =
    language === 'python'
      ? [
          `${total} = 0`,
          `for i in range(${count}):`,
          `    ${total} += ${constant ? k : 'i'}`,
          `print(${total})`,
        ]
      : [
          `let ${total} = 0;`,
          `for (let i = 0; i < ${count}; i++) {`,
          `  ${total} += ${constant ? k : 'i'};`,
          '}',
          `console.log(${total});`,
        ];
  return {
    lines,
    output: String(value),
    trace: `The loop runs ${count} times${constant ? '' : `, with i from 0 to ${count - 1}`}. The steps are ${notes.join(', ')}.`,
  };
}

function loopPrint(random: Random, language: Language): Program {
  const items = random.sample(random.chance(0.5) ? colours : words.slice(20, 80), random.int(2, 4));
  const list = items.map((item) => `"${item}"`).join(', ');
  const name = random.pick(['word', 'item', 'thing']);
  const loud = random.chance(0.4);
  const shown = loud ? items.map((item) => `${item}!`) : items;
  const value = loud ? `${name} + "!"` : name;
  const lines =
    language === 'python'
      ? [`for ${name} in [${list}]:`, `    print(${value})`]
      : [`for (const ${name} of [${list}]) {`, `  console.log(${value});`, '}'];
  return {
    lines,
    output: shown.join('\n'),
    trace: `The loop goes over ${items.length} items and prints each one${loud ? ' with a "!"' : ''} on a line of its own.`,
  };
}

function whileLoop(random: Random, language: Language): Program {
  const name = random.pick(['n', 'x', 'count', 'left']);
  const step = random.int(2, 6);
  const limit = random.int(2, 8);
  const start = limit + step * random.int(1, 3) + random.int(1, step);
  let value = start;
  const notes: string[] = [];
  while (value > limit) {
    notes.push(`${value} - ${step} = ${value - step}`);
    value -= step;
  }
  const lines =
    language === 'python'
      ? [`${name} = ${start}`, `while ${name} > ${limit}:`, `    ${name} -= ${step}`, `print(${name})`]
      : [
          `let ${name} = ${start};`,
          `while (${name} > ${limit}) {`,
          `  ${name} -= ${step};`,
          '}',
          `console.log(${name});`,
        ];
  return {
    lines,
    output: String(value),
    trace: `The loop goes on while ${name} is above ${limit}. The steps are ${notes.join(', ')}.`,
  };
}

function functionCall(random: Random, language: Language): Program {
  const name = random.pick(['f', 'g', 'change', 'compute', 'step']);
  const k = random.int(2, 9);
  const m = random.int(1, 20);
  const arg = random.int(2, 9);
  const product = arg * k;
  const result = product + m;
  const lines =
    language === 'python'
      ? [`def ${name}(x):`, `    return x * ${k} + ${m}`, '', `print(${name}(${arg}))`]
      : [`function ${name}(x) {`, `  return x * ${k} + ${m};`, '}', '', `console.log(${name}(${arg}));`];
  return {
    lines,
    output: String(result),
    trace: `The call sets x to ${arg}. First ${arg} * ${k} = ${product}, then ${product} + ${m} = ${result}.`,
  };
}

function mapPrint(random: Random, language: Language): Program {
  const items = Array.from({ length: random.int(2, 4) }, () => random.int(1, 12));
  const k = random.int(2, 9);
  const times = random.chance(0.5);
  const results = items.map((item) => (times ? item * k : item + k));
  const op = times ? '*' : '+';
  const lines =
    language === 'python'
      ? [`xs = [${items.join(', ')}]`, `print([x ${op} ${k} for x in xs])`]
      : [`const xs = [${items.join(', ')}];`, `console.log(xs.map((x) => x ${op} ${k}).join(", "));`];
  const output = language === 'python' ? `[${results.join(', ')}]` : results.join(', ');
  return {
    lines,
    output,
    trace: `Every number is changed: ${items.map((item, i) => `${item} ${op} ${k} = ${results[i]}`).join(', ')}.`,
  };
}

type ProgramMaker = (random: Random, language: Language) => Program;
const easyPrograms: readonly ProgramMaker[] = [sumOfTwo, listItem, textProgram, condition, sumOfTwo, changes];
const hardPrograms: readonly ProgramMaker[] = [
  changes,
  loopSum,
  loopPrint,
  whileLoop,
  functionCall,
  mapPrint,
];
