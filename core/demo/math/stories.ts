import type { Random } from '../random.ts';
import { capitalise, colours, containers, days, people, places, things, withArticle } from '../world.ts';
import { applyStep, drawDivisor } from './story.ts';
import type { Story, StoryStep } from './story.ts';

/** Draws a story of the given number of steps. */
export type StoryMaker = (random: Random, steps: number, limit: number) => Story;

/** The kinds of stories, with the most steps each can tell and its weight. */
export const storyMakers: readonly { task: string; weight: number; maxSteps: number; make: StoryMaker }[] = [
  { task: 'collect', weight: 6, maxSteps: 3, make: collectStory },
  { task: 'groups', weight: 4, maxSteps: 3, make: groupStory },
  { task: 'money', weight: 3, maxSteps: 2, make: moneyStory },
  { task: 'age', weight: 2, maxSteps: 2, make: ageStory },
  { task: 'reading', weight: 3, maxSteps: 2, make: readingStory },
  { task: 'bus', weight: 3, maxSteps: 3, make: busStory },
  { task: 'animals', weight: 2, maxSteps: 2, make: farmStory },
];

/** Things gained and lost, then perhaps multiplied or shared. */
function collectStory(random: Random, steps: number, limit: number): Story {
  const [person, friend] = random.sample(people, 2) as [(typeof people)[0], (typeof people)[0]];
  const { name, she } = person;
  const She = capitalise(she);
  const thing = random.pick(things).many;
  const place = random.pick(places);
  const start = random.int(3, Math.max(6, Math.floor(limit / 2)));
  const state = (sum: string): string => `${name} has ${sum} ${thing}`;
  const chain: StoryStep[] = [];
  let value = start;
  for (let i = 0; i < steps; i++) {
    const divisor = i === steps - 1 && i > 0 && random.chance(0.3) ? drawDivisor(random, value, 9) : 0;
    let step: StoryStep;
    if (divisor > 0) {
      step = {
        op: '/',
        operand: divisor,
        tell: [
          (n) => `${She} shares all the ${thing} equally among ${n} friends.`,
          (n) => `Then ${name} puts the ${thing} into ${n} bags, the same number in each.`,
        ],
        lead: 'When they are shared equally',
        state: (sum) => `each share has ${sum} ${thing}`,
      };
    } else if (value <= limit / 3 && i > 0 && random.chance(0.3)) {
      step = {
        op: '*',
        operand: random.int(2, 3),
        tell: [
          (n) => `A week later ${she} has ${n} times as many.`,
          (n) => `After some time the number of ${name}'s ${thing} is ${n} times as large.`,
        ],
        lead: 'When there are several times as many',
      };
    } else if (random.chance(0.5) && value > 4) {
      const operand = random.int(2, value - 2);
      step = random.pick<StoryStep>([
        {
          op: '-',
          operand,
          tell: [
            (n) => `${She} gives ${n} ${thing} to ${friend.name}.`,
            (n) => `${friend.name} gets ${n} of them from ${name}.`,
          ],
          lead: `After giving ${thing} to ${friend.name}`,
        },
        {
          op: '-',
          operand,
          tell: [
            (n) => `${She} loses ${n} of them ${place}.`,
            (n) => `Then ${n} ${thing} get lost ${place}.`,
          ],
          lead: 'After losing some',
        },
        {
          op: '-',
          operand,
          tell: [(n) => `${She} sells ${n} ${thing}.`, (n) => `Of these, ${name} sells ${n}.`],
          lead: `After selling some ${thing}`,
        },
      ]);
    } else {
      const operand = random.int(2, Math.max(3, limit - value));
      step = random.pick<StoryStep>([
        {
          op: '+',
          operand,
          tell: [
            (n) => `${She} finds ${n} more ${thing} ${place}.`,
            (n) => `Then ${name} picks up another ${n} ${thing} ${place}.`,
          ],
          lead: `After finding more ${thing}`,
        },
        {
          op: '+',
          operand,
          tell: [
            (n) => `${friend.name} gives ${she === 'she' ? 'her' : 'him'} ${n} more.`,
            (n) => `As a gift from ${friend.name}, ${name} receives ${n} ${thing}.`,
          ],
          lead: `With the gift from ${friend.name}`,
        },
        {
          op: '+',
          operand,
          tell: [
            (n) => `${She} buys ${n} more ${thing}.`,
            (n) => `At the shop ${name} pays for another ${n} ${thing}.`,
          ],
          lead: 'After shopping',
        },
      ]);
    }
    chain.push(step);
    value = applyStep(value, step);
  }
  const shared = chain[chain.length - 1]?.op === '/';
  return {
    start,
    steps: chain,
    opening: [(n) => `${name} has ${n} ${thing}.`, (n) => `There are ${n} ${thing} that belong to ${name}.`],
    ask: shared
      ? [`How many ${thing} are in each share?`, `What number of ${thing} is in one share?`]
      : [`How many ${thing} does ${name} have now?`, `What is the number of ${name}'s ${thing} at the end?`],
    declare: (result) =>
      shared ? `Each share has ${result} ${thing}` : `${name} has ${result} ${thing} now`,
    state,
  };
}

/** Containers with the same number in each, then some more or fewer. */
function groupStory(random: Random, steps: number, limit: number): Story {
  const person = random.pick(people);
  const { name, she } = person;
  const She = capitalise(she);
  const thing = random.pick(things).many;
  const container = random.pick(containers);
  const start = random.int(2, 9);
  const each = random.int(2, Math.max(2, Math.min(10, Math.floor(limit / start))));
  const chain: StoryStep[] = [
    {
      op: '*',
      operand: each,
      tell: [
        (n) => `There are ${n} ${thing} in each ${container.one}.`,
        (n) => `Each of the ${container.many} holds ${n} ${thing}.`,
      ],
      lead: `With the same number in each ${container.one}`,
    },
  ];
  let value = start * each;
  while (chain.length < steps) {
    const step: StoryStep =
      random.chance(0.5) && value > 4
        ? {
            op: '-',
            operand: random.int(2, value - 2),
            tell: [
              (n) => `${She} takes out ${n} ${thing}.`,
              (n) => `Then ${n} of the ${thing} are given away.`,
            ],
            lead: `After ${thing} are taken away`,
          }
        : {
            op: '+',
            operand: random.int(2, 30),
            tell: [
              (n) => `${She} also has ${n} loose ${thing}.`,
              (n) => `Another ${n} ${thing} lie beside them.`,
            ],
            lead: `With the other ${thing}`,
          };
    chain.push(step);
    value = applyStep(value, step);
  }
  return {
    start,
    steps: chain,
    opening: [
      (n) => `${name} has ${n} ${container.many}.`,
      (n) => `${capitalise(name)} owns ${n} ${container.many} for ${thing}.`,
    ],
    ask: [`How many ${thing} does ${name} have in all?`, `What is the total number of ${thing}?`],
    declare: (result) => `${name} has ${result} ${thing} in all`,
    state: (sum) => `${name} has ${sum} ${thing}`,
  };
}

/** What can be bought for coins. */
const goods = things.filter((thing) => thing.one !== 'coin');

/** Price times count, then the change. */
function moneyStory(random: Random, steps: number, limit: number): Story {
  const person = random.pick(people);
  const { name, she } = person;
  const thing = random.pick(goods);
  const price = random.int(2, 9);
  const count = random.int(2, Math.max(2, Math.min(9, Math.floor(limit / price))));
  const cost = price * count;
  const chain: StoryStep[] = [
    {
      op: '*',
      operand: count,
      tell: [(n) => `${name} buys ${n} of them.`, (n) => `At this price, ${name} takes ${n} ${thing.many}.`],
      lead: `For all the ${thing.many}`,
      state: (sum) => `${name} pays ${sum} coins`,
    },
  ];
  if (steps > 1) {
    const bill = Math.ceil((cost + 2) / 10) * 10;
    chain.push(
      random.chance(0.6)
        ? {
            op: 'from',
            operand: bill,
            tell: [
              (n) => `${capitalise(she)} had ${n} coins before.`,
              (n) => `Before shopping there were ${n} coins in ${person.her} purse.`,
            ],
            lead: 'Out of the purse',
            state: (sum) => `there are ${sum} coins left`,
          }
        : {
            op: '+',
            operand: random.int(2, 20),
            tell: [
              (n) => `Then ${she} spends ${n} coins on a bus ticket.`,
              (n) => `The way home costs ${n} coins more.`,
            ],
            lead: 'With the way home',
            state: (sum) => `${name} spends ${sum} coins`,
          },
    );
  }
  const change = chain[1]?.op === 'from';
  const name2 = change
    ? `How many coins does ${name} have left?`
    : `How many coins does ${name} spend in all?`;
  return {
    start: price,
    steps: chain,
    opening: [
      (n) => `One ${thing.one} costs ${n} coins.`,
      (n) => `The price of a single ${thing.one} is ${n} coins.`,
    ],
    ask: [name2, change ? `What is left of ${name}'s coins?` : `What does ${name} pay in total?`],
    declare: (result) =>
      change ? `${name} has ${result} coins left` : `${name} spends ${result} coins in all`,
    state: (sum) => `${name} pays ${sum} coins`,
  };
}

/** Ages of two people, now and later. */
function ageStory(random: Random, steps: number): Story {
  const [person, other] = random.sample(people, 2) as [(typeof people)[0], (typeof people)[0]];
  const start = random.int(5, 30);
  const gap = random.int(2, 20);
  const years = random.int(2, 15);
  const older = random.chance(0.5) || gap + 3 > start;
  const chain: StoryStep[] = [
    {
      op: older ? '+' : '-',
      operand: gap,
      tell: older
        ? [
            (n) => `${other.name} is ${n} years older than ${person.name}.`,
            (n) => `The age of ${other.name} is ${n} years more.`,
          ]
        : [
            (n) => `${other.name} is ${n} years younger than ${person.name}.`,
            (n) => `The age of ${other.name} is ${n} years less.`,
          ],
      lead: `From ${person.name}'s age`,
      state: (sum) => `${other.name} is ${sum} years old`,
    },
  ];
  if (steps > 1) {
    chain.push({
      op: '+',
      operand: years,
      tell: [(n) => `We look ${n} years ahead.`, (n) => `Now let ${n} years pass.`],
      lead: 'After these years',
      state: (sum) => `${other.name} will be ${sum} years old`,
    });
  }
  const later = steps > 1;
  return {
    start,
    steps: chain,
    opening: [(n) => `${person.name} is ${n} years old.`, (n) => `The age of ${person.name} is ${n} years.`],
    ask: later
      ? [`How old will ${other.name} be then?`, `What will be the age of ${other.name}?`]
      : [`How old is ${other.name}?`, `What is the age of ${other.name}?`],
    declare: (result) =>
      later ? `${other.name} will be ${result} years old then` : `${other.name} is ${result} years old`,
    state: (sum) => `${person.name} is ${sum} years old`,
  };
}

const dailyWork = [
  ['reads', 'pages', 'book', 'read'],
  ['writes', 'lines', 'story', 'write'],
  ['paints', 'tiles', 'wall', 'paint'],
  ['learns', 'words', 'list', 'learn'],
  ['plants', 'trees', 'garden', 'plant'],
  ['bakes', 'rolls', 'order', 'bake'],
] as const;

/** So many each day for some days, then what is left of the whole. */
function readingStory(random: Random, steps: number, limit: number): Story {
  const person = random.pick(people);
  const { name, she } = person;
  const [verb, unit, whole, base] = random.pick(dailyWork);
  const perDay = random.int(2, 10);
  const dayCount = random.int(2, Math.max(2, Math.min(9, Math.floor(limit / perDay))));
  const done = perDay * dayCount;
  const chain: StoryStep[] = [
    {
      op: '*',
      operand: dayCount,
      tell: [
        (n) => `${capitalise(she)} does this for ${n} days.`,
        (n) => `It goes on like this for ${n} days.`,
      ],
      lead: 'Over all these days',
      state: (sum) => `${name} ${verb} ${sum} ${unit}`,
    },
  ];
  if (steps > 1) {
    chain.push({
      op: 'from',
      operand: done + random.int(2, 40),
      tell: [
        (n) => `The whole ${whole} has ${n} ${unit}.`,
        (n) => `In all, the ${whole} needs ${n} ${unit}.`,
      ],
      lead: `Of the whole ${whole}`,
      state: (sum) => `there are ${sum} ${unit} left`,
    });
  }
  const left = steps > 1;
  return {
    start: perDay,
    steps: chain,
    opening: [(n) => `${name} ${verb} ${n} ${unit} a day.`, (n) => `Every day ${name} ${verb} ${n} ${unit}.`],
    ask: left
      ? [`How many ${unit} are left?`, `What number of ${unit} is still to do?`]
      : [`How many ${unit} does ${name} ${base} in all?`, `What is the total number of ${unit}?`],
    declare: (result) => (left ? `${result} ${unit} are left` : `${name} ${verb} ${result} ${unit} in all`),
    state: (sum) => `${name} ${verb} ${sum} ${unit}`,
  };
}

const vehicles = [
  ['bus', 'stop', 'people', 'get on', 'get off'],
  ['train', 'station', 'travellers', 'get on', 'get off'],
  ['ship', 'harbour', 'guests', 'come on board', 'leave'],
  ['lift', 'floor', 'people', 'get in', 'get out'],
] as const;

/** Passengers getting on and off. */
function busStory(random: Random, steps: number, limit: number): Story {
  const [vehicle, stop, riders, on, off] = random.pick(vehicles);
  const day = random.pick(days);
  const colour = random.pick(colours);
  const start = random.int(5, Math.max(8, Math.floor(limit / 2)));
  const order = ['first', 'second', 'third'];
  const chain: StoryStep[] = [];
  let value = start;
  while (chain.length < steps) {
    const at = order[chain.length] as string;
    const step: StoryStep =
      random.chance(0.5) && value > 4
        ? {
            op: '-',
            operand: random.int(2, value - 2),
            tell: [
              (n) => `At the ${at} ${stop}, ${n} ${riders} ${off}.`,
              (n) => `When it reaches the ${at} ${stop}, ${n} of them ${off}.`,
            ],
            lead: `After the ${at} ${stop}`,
          }
        : {
            op: '+',
            operand: random.int(2, Math.max(3, Math.min(40, limit - value))),
            tell: [
              (n) => `At the ${at} ${stop}, ${n} ${riders} ${on}.`,
              (n) => `When it reaches the ${at} ${stop}, another ${n} ${on}.`,
            ],
            lead: `After the ${at} ${stop}`,
          };
    chain.push(step);
    value = applyStep(value, step);
  }
  return {
    start,
    steps: chain,
    opening: [
      (n) => `${capitalise(withArticle(colour))} ${vehicle} starts on ${day} with ${n} ${riders}.`,
      (n) => `On ${day} there are ${n} ${riders} in ${withArticle(colour)} ${vehicle}.`,
    ],
    ask: [
      `How many ${riders} are in the ${vehicle} now?`,
      `What is the number of ${riders} in the ${vehicle} after that?`,
    ],
    declare: (result) => `${result} ${riders} are in the ${vehicle} now`,
    state: (sum) => `there are ${sum} ${riders} in the ${vehicle}`,
  };
}

const herds = [
  ['cows', 'litres of milk', 'gives'],
  ['hens', 'eggs', 'lays'],
  ['sheep', 'bags of wool', 'gives'],
  ['bees', 'spoons of honey', 'makes'],
  ['trees', 'baskets of fruit', 'gives'],
] as const;

/** A herd that gives something each week, some of which is sold. */
function farmStory(random: Random, steps: number, limit: number): Story {
  const person = random.pick(people);
  const [herd, product, gives] = random.pick(herds);
  const start = random.int(2, 10);
  const each = random.int(2, Math.max(2, Math.min(9, Math.floor(limit / start))));
  const chain: StoryStep[] = [
    {
      op: '*',
      operand: each,
      tell: [
        (n) => `In one week each of them ${gives} ${n} ${product}.`,
        (n) => `Every one ${gives} ${n} ${product} a week.`,
      ],
      lead: 'In one week',
      state: (sum) => `the ${herd} give ${sum} ${product}`,
    },
  ];
  const total = start * each;
  if (steps > 1) {
    chain.push({
      op: '-',
      operand: random.int(2, Math.max(2, total - 2)),
      tell: [
        (n) => `The family keeps ${n} and sells the rest.`,
        (n) => `Of these, ${n} stay at home and the rest is sold.`,
      ],
      lead: `Without what stays at home`,
      state: (sum) => `${person.name} sells ${sum} ${product}`,
    });
  }
  const sold = steps > 1;
  return {
    start,
    steps: chain,
    opening: [
      (n) => `${person.name} has ${n} ${herd}.`,
      (n) => `There are ${n} ${herd} on ${person.name}'s farm.`,
    ],
    ask: sold
      ? [
          `How many ${product} does ${person.name} sell each week?`,
          `What number of ${product} is sold each week?`,
        ]
      : [`How many ${product} is that in a week?`, `What is the weekly number of ${product}?`],
    declare: (result) =>
      sold ? `${person.name} sells ${result} ${product} each week` : `That is ${result} ${product} in a week`,
    state: (sum) => `the ${herd} give ${sum} ${product}`,
  };
}
