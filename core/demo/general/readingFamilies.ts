import type { FamilyEntry, Problem } from '../problem.ts';
import type { Random } from '../random.ts';
import {
  actions,
  capitalise,
  colours,
  days,
  jobs,
  people,
  places,
  spots,
  things,
  withArticle,
} from '../world.ts';
import type { Person } from '../world.ts';

/** Families that read: short passages, stated facts, comparisons, feelings, cards to fill in, invented languages. */
export const readingFamilies: readonly FamilyEntry[] = [
  { task: 'read-passage', weight: 14, inPretraining: true, draw: readPassage },
  { task: 'stated-fact', weight: 8, inPretraining: true, draw: statedFact },
  { task: 'compare-people', weight: 7, inPretraining: true, draw: comparePeople },
  { task: 'sentiment', weight: 9, inPretraining: true, draw: sentiment },
  { task: 'fill-card', weight: 10, inPretraining: false, draw: fillCard },
  { task: 'glossary', weight: 8, inPretraining: true, draw: glossary },
];

/** One statement of a passage, and the questions it answers. */
interface Statement {
  text: string;
  asked: readonly { question: string; value: string; because: string }[];
}

function drawStatement(random: Random, person: Person): Statement {
  const { name, her } = person;
  const thing = random.pick(things).one;
  const colour = random.pick(colours);
  const spot = random.pick(spots);
  const place = random.pick(places);
  const day = random.pick(days);
  const job = random.pick(jobs);
  const age = String(random.int(5, 80));
  switch (random.int(0, 5)) {
    case 0:
      return {
        text: `${name} put the ${colour} ${thing} ${spot}.`,
        asked: [
          {
            question: `Where did ${name} put the ${thing}?`,
            value: spot,
            because: `${name} put the ${thing} ${spot}`,
          },
          {
            question: `What colour is the ${thing}?`,
            value: colour,
            because: `the text speaks of the ${colour} ${thing}`,
          },
          { question: `Who put the ${thing} ${spot}?`, value: name, because: `${name} did it` },
        ],
      };
    case 1:
      return {
        text: `On ${day} ${name} found ${withArticle(thing)} ${place}.`,
        asked: [
          {
            question: `What did ${name} find?`,
            value: withArticle(thing),
            because: `${name} found ${withArticle(thing)} ${place}`,
          },
          {
            question: `When did ${name} find the ${thing}?`,
            value: `on ${day}`,
            because: `it happened on ${day}`,
          },
          {
            question: `Where did ${name} find the ${thing}?`,
            value: place,
            because: `${name} found it ${place}`,
          },
        ],
      };
    case 2:
      return {
        text: `${name} is ${age} years old and works as ${job}.`,
        asked: [
          { question: `How old is ${name}?`, value: age, because: `the text gives ${her} age as ${age}` },
          { question: `What is ${name}'s job?`, value: job, because: `${name} works as ${job}` },
        ],
      };
    case 3:
      return {
        text: `${name} bought ${withArticle(colour)} ${thing} on ${day}.`,
        asked: [
          {
            question: `What did ${name} buy?`,
            value: `${withArticle(colour)} ${thing}`,
            because: `${name} bought it on ${day}`,
          },
          {
            question: `On which day did ${name} go shopping?`,
            value: day,
            because: `${name} bought the ${thing} on ${day}`,
          },
        ],
      };
    case 4:
      return {
        text: `${name} likes to sit ${place} with ${her} ${thing}.`,
        asked: [
          {
            question: `Where does ${name} like to sit?`,
            value: place,
            because: `${name} likes to sit ${place}`,
          },
          {
            question: `What does ${name} have with ${person.she === 'she' ? 'her' : 'him'}?`,
            value: `${her} ${thing}`,
            because: `${name} sits there with ${her} ${thing}`,
          },
        ],
      };
    default: {
      const action = random.pick(actions);
      const rest = random.pick(action.rest);
      return {
        text: `In the morning ${name} ${action.past} ${rest}.`,
        asked: [
          { question: `Who ${action.past} ${rest}?`, value: name, because: `${name} ${action.past} ${rest}` },
          {
            question: `When did ${name} ${action.base} ${rest}?`,
            value: 'in the morning',
            because: `${name} did it in the morning`,
          },
        ],
      };
    }
  }
}

function readPassage(random: Random, hard: boolean): Problem {
  const count = hard ? 3 : random.int(1, 2);
  const cast = random.sample(people, count);
  const statements = cast.map((person) => drawStatement(random, person));
  const passage = statements.map((statement) => statement.text).join(' ');
  const { question, value, because } = random.pick(random.pick(statements).asked);
  return {
    kind: 'general',
    task: 'read-passage',
    easy: !hard,
    question: random.pick([
      `${passage}\n\n${question}`,
      `Read the text and answer the question.\nText: ${passage}\nQuestion: ${question}`,
      `Passage: ${passage}\n\nUsing only the passage, answer: ${question}`,
      `${question} Here is what we know: ${passage}`,
      `Answer the question from the text.\n\n${passage}\n\n${question}`,
    ]),
    group: `${passage} ${question}`,
    brief: value,
    answer: random.pick([
      `The text tells us that ${because}. So the answer is: ${value}`,
      `We look for the sentence that speaks about this. It says that ${because}.\nThe answer is: ${value}`,
    ]),
    check: { by: 'ending', value },
  };
}

function statedFact(random: Random, hard: boolean): Problem {
  const [first, second] = random.sample(things, 2) as [(typeof things)[0], (typeof things)[0]];
  const [colour, otherColour] = random.sample(colours, 2) as [string, string];
  const spot = random.pick(spots);
  const person = random.pick(people);
  const truth = random.chance(0.5);
  const all = random.chance(0.5);
  let fact: string;
  let asked: string;
  let because: string;
  if (hard) {
    fact = `All ${first.many} ${spot} are ${colour}. ${person.name} takes ${withArticle(first.one)} that lies ${spot}.`;
    asked = truth
      ? `Is the ${first.one} that ${person.name} takes ${colour}?`
      : `Is the ${first.one} that ${person.name} takes ${otherColour}?`;
    because = `every ${first.one} ${spot} is ${colour}, and ${person.name} takes one of them`;
  } else if (all) {
    fact = `All ${first.many} ${spot} are ${colour}.`;
    asked = `Is ${withArticle(first.one)} ${spot} ${truth ? colour : otherColour}?`;
    because = `every ${first.one} ${spot} is ${colour}`;
  } else {
    fact = `${person.name} has ${withArticle(first.one)} but no ${second.one}.`;
    asked = `Does ${person.name} have ${withArticle(truth ? first.one : second.one)}?`;
    because = truth ? `${person.name} has ${withArticle(first.one)}` : `${person.name} has no ${second.one}`;
  }
  const value = truth ? 'yes' : 'no';
  return {
    kind: 'general',
    task: 'stated-fact',
    easy: !hard,
    question: random.pick([
      `${fact} ${asked} Answer yes or no.`,
      `Fact: ${fact}\nQuestion: ${asked}`,
      `${fact}\nYes or no: ${lowerFirst(asked)}`,
      `Suppose this is true: ${fact} ${asked}`,
    ]),
    group: `${fact} ${asked}`,
    brief: value,
    answer: random.pick([
      `We are told that ${because}. So the answer is: ${value}`,
      `According to the fact, ${because}.\nThe answer is: ${value}`,
    ]),
    check: { by: 'ending', value },
  };
}

const comparisons: readonly (readonly [string, string, string])[] = [
  ['taller', 'shorter', 'tallest'],
  ['older', 'younger', 'oldest'],
  ['faster', 'slower', 'fastest'],
  ['stronger', 'weaker', 'strongest'],
  ['richer', 'poorer', 'richest'],
];

function comparePeople(random: Random, hard: boolean): Problem {
  const [more, less, most] = random.pick(comparisons);
  const [a, b, c] = random.sample(people, 3).map((person) => person.name) as [string, string, string];
  const turned = random.chance(0.5);
  const firstFact = turned ? `${b} is ${less} than ${a}.` : `${a} is ${more} than ${b}.`;
  if (!hard) {
    const askLess = random.chance(0.5);
    const value = askLess ? b : a;
    return {
      kind: 'general',
      task: 'compare-people',
      easy: true,
      question: random.pick([
        `${firstFact} Who is ${askLess ? less : more}?`,
        `Read this: ${firstFact} Which of the two is ${askLess ? less : more}?`,
        `Who is ${askLess ? less : more}, ${a} or ${b}, if we know that ${firstFact}`.replace(/\.$/, '?'),
      ]),
      group: `${firstFact} ${askLess}`,
      brief: value,
      answer: `We know that ${firstFact.slice(0, -1)}${turned === askLess ? '' : `, which means that ${turned ? `${a} is ${more} than ${b}` : `${b} is ${less} than ${a}`}`}.\nThe ${askLess ? less : more} one is: ${value}`,
      check: { by: 'ending', value },
    };
  }
  const secondFact = random.chance(0.5) ? `${b} is ${more} than ${c}.` : `${c} is ${less} than ${b}.`;
  const facts = random.chance(0.5) ? `${firstFact} ${secondFact}` : `${secondFact} ${firstFact}`;
  return {
    kind: 'general',
    task: 'compare-people',
    easy: false,
    question: random.pick([
      `${facts} Who is the ${most}?`,
      `${facts}\nWho is the ${most} of the three?`,
      `Three friends: ${facts} Name the ${most} one.`,
    ]),
    group: `${facts} ${most}`,
    brief: a,
    answer: `From the facts, ${a} is ${more} than ${b}, and ${b} is ${more} than ${c}. So nobody is ${more} than ${a}.\nThe ${most} is: ${a}`,
    check: { by: 'ending', value: a },
  };
}

const subjects = [
  'The soup',
  'The film',
  'The hotel',
  'The book',
  'The trip',
  'The concert',
  'The new phone',
  'The cake',
  'The game',
  'The museum',
  'Our teacher',
  'The train ride',
  'The coffee',
  'The song',
  'The chair',
  'The restaurant',
];
const praise = [
  'wonderful',
  'great',
  'lovely',
  'excellent',
  'delightful',
  'perfect',
  'very good',
  'fantastic',
];
const blame = [
  'terrible',
  'awful',
  'boring',
  'very bad',
  'disappointing',
  'horrible',
  'ugly',
  'far too expensive',
];
const gladEnds = [
  'I loved every minute of it',
  'we would come again',
  'it made me smile',
  'I can only recommend it',
  'everyone was happy',
];
const sadEnds = [
  'I want my money back',
  'we left early',
  'I was angry afterwards',
  'nobody enjoyed it',
  'it was a waste of time',
];

function sentiment(random: Random, hard: boolean): Problem {
  const positive = random.chance(0.5);
  const subject = random.pick(subjects);
  const adjective = random.pick(positive ? praise : blame);
  const end = random.pick(positive ? gladEnds : sadEnds);
  let review: string;
  let clue = adjective;
  if (hard && random.chance(0.5)) {
    const opposite = random.pick(positive ? blame : praise);
    review = `${subject} was not ${opposite} at all, and ${end}.`;
    clue = `not ${opposite} at all`;
  } else if (hard) {
    const other = random.pick(subjects.filter((candidate) => candidate !== subject));
    review = `People said that ${lowerFirst(other)} was ${random.pick(positive ? blame : praise)}, but I found it ${adjective}, and ${end}.`;
  } else {
    review = random.pick([
      `${subject} was ${adjective}.`,
      `${subject} was ${adjective}, and ${end}.`,
      `${capitalise(end)}. ${subject} was ${adjective}.`,
    ]);
  }
  const value = positive ? 'positive' : 'negative';
  return {
    kind: 'general',
    task: 'sentiment',
    easy: !hard,
    question: random.pick([
      `Is this review positive or negative? "${review}"`,
      `Classify the feeling of the sentence as positive or negative.\nSentence: ${review}`,
      `Review: ${review}\nIs the writer's opinion positive or negative?`,
      `Decide if the following text is positive or negative: ${review}`,
    ]),
    group: review,
    brief: value,
    answer: `The writer says "${clue}"${review.includes(end) ? ` and that "${end}"` : review.includes(capitalise(end)) ? ` and "${capitalise(end)}"` : ''}, which is a ${positive ? 'good' : 'bad'} sign.\nThe review is: ${value}`,
    check: { by: 'ending', value },
  };
}

function fillCard(random: Random, hard: boolean): Problem {
  const person = random.pick(people);
  const age = random.int(6, 80);
  const job = random.pick(jobs).replace(/^an? /, '');
  const colour = random.pick(colours);
  const thing = random.pick(things).one;
  const fields: [string, string, string][] = [
    ['name', person.name, ''],
    ['age', String(age), `is ${age} years old`],
    ['job', job, `works as a ${job}`.replace('a engineer', 'an engineer')],
    ['colour', colour, `likes the colour ${colour}`],
    ['gift', thing, `wants ${withArticle(thing)}`],
  ];
  const chosen = [fields[0] as (typeof fields)[0], ...random.sample(fields.slice(1), hard ? 3 : 2)];
  const told = chosen.slice(1).map((field) => field[2]);
  const text = `${person.name} ${told.slice(0, -1).join(', ')} and ${told[told.length - 1]}.`;
  const order = chosen.map((field) => field[0]).join(', ');
  const value = chosen.map((field) => `- ${field[0]}: ${field[1]}`).join('\n');
  return {
    kind: 'general',
    task: 'fill-card',
    easy: !hard,
    question: random.pick([
      `Fill in a card with the fields ${order} from this text: ${text}`,
      `Text: ${text}\nWrite the facts as lines with these labels: ${order}`,
      `Make a card (${order}) for the person in the text. ${text}`,
    ]),
    group: `${text} ${order}`,
    brief: value,
    answer: `Here is the card for ${person.name}:\n${value}`,
    check: { by: 'block', value },
  };
}

const syllables = 'ba ke lo mi nu pa ri so ta vu zo fe gi da ju po la mo ne su ti ra ko be'.split(' ');
const glossaryNouns = ['cat', 'dog', 'bird', 'girl', 'king', 'horse', 'fish', 'boy', 'wolf', 'queen'];
const glossaryVerbs = ['sees', 'loves', 'finds', 'helps', 'follows', 'hears'];

function glossary(random: Random, hard: boolean): Problem {
  const nouns = random.sample(glossaryNouns, hard ? 3 : 2);
  const verbs = random.sample(glossaryVerbs, hard ? 2 : 1);
  const foreign: string[] = [];
  while (foreign.length < nouns.length + verbs.length) {
    const word =
      random.pick(syllables) + random.pick(syllables) + (random.chance(0.3) ? random.pick(syllables) : '');
    if (!foreign.includes(word)) foreign.push(word);
  }
  const english = [...nouns, ...verbs];
  const entries = random.shuffle(english.map((word, i) => [foreign[i] as string, word] as const));
  const [subject, object] = random.sample(nouns, 2) as [string, string];
  const sentence =
    hard || random.chance(0.5) ? [subject, random.pick(verbs), object] : [subject, random.pick(verbs)];
  const foreignSentence = sentence.map((word) => foreign[english.indexOf(word)] as string);
  const toEnglish = random.chance(0.5);
  const from = (toEnglish ? foreignSentence : sentence).join(' ');
  const value = (toEnglish ? sentence : foreignSentence).join(' ');
  const book = entries.map(([theirs, ours]) => `${theirs} = ${ours}`).join(', ');
  const language = capitalise(random.pick(syllables) + random.pick(syllables)) + 'n';
  const target = toEnglish ? 'English' : language;
  const pairs = (toEnglish ? foreignSentence : sentence).map(
    (word, i) => `"${word}" is "${(toEnglish ? sentence : foreignSentence)[i]}"`,
  );
  return {
    kind: 'general',
    task: 'glossary',
    easy: !hard,
    question: random.pick([
      `Use this glossary: ${book}. Translate into ${target}, word by word: ${from}`,
      `Glossary of ${language}: ${book}\nWhat is "${from}" in ${target}?`,
      `In the language ${language}, ${book}. Translate "${from}" into ${target}.`,
    ]),
    group: `${book} ${from}`,
    brief: value,
    answer: `In the glossary ${pairs.join(', and ')}.\nThe translation is: ${value}`,
    check: { by: 'ending', value },
  };
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
