import type { FamilyEntry, Problem } from '../problem.ts';
import type { Random } from '../random.ts';
import {
  actions,
  animals,
  capitalise,
  capitals,
  opposites,
  people,
  thingColours,
  things,
  withArticle,
} from '../world.ts';

/** Families about language (rewriting, forms, opposites) and about the closed world's facts. */
export const languageFamilies: readonly FamilyEntry[] = [
  { task: 'rewrite-tense', weight: 7, inPretraining: true, draw: rewriteTense },
  { task: 'rewrite-negative', weight: 8, inPretraining: false, draw: rewriteNegative },
  { task: 'replace-word', weight: 7, inPretraining: true, draw: replaceWord },
  { task: 'plural', weight: 4, inPretraining: true, draw: plural },
  { task: 'opposite', weight: 5, inPretraining: true, draw: opposite },
  { task: 'world-fact', weight: 9, inPretraining: true, draw: worldFact },
  { task: 'data-to-sentence', weight: 8, inPretraining: false, draw: dataToSentence },
];

function drawSentence(random: Random): { who: string; action: (typeof actions)[0]; rest: string } {
  const action = random.pick(actions);
  return { who: random.pick(people).name, action, rest: random.pick(action.rest) };
}

function rewriteTense(random: Random, hard: boolean): Problem {
  const { who, action, rest } = drawSentence(random);
  const toPast = !hard || random.chance(0.5);
  const present = `${who} ${action.third} ${rest}.`;
  const past = `${who} ${action.past} ${rest}.`;
  const future = `${who} will ${action.base} ${rest}.`;
  const from = toPast ? present : random.chance(0.5) ? past : future;
  const value = toPast ? (hard ? future : past) : present;
  const tense = toPast ? (hard ? 'future' : 'past') : 'present';
  return {
    kind: 'general',
    task: 'rewrite-tense',
    easy: !hard,
    question: random.pick([
      `Rewrite this sentence in the ${tense} tense: ${from}`,
      `Put the sentence into the ${tense} tense.\n${from}`,
      `Change the verb to the ${tense} tense: "${from}"`,
      `How do you say "${from}" in the ${tense} tense?`,
    ]),
    group: `tense ${tense} ${from}`,
    brief: value,
    answer: `The verb here is "${action.base}". In the ${tense} tense it becomes "${tense === 'past' ? action.past : tense === 'present' ? action.third : `will ${action.base}`}".\nThe new sentence is: ${value}`,
    check: { by: 'ending', value },
  };
}

function rewriteNegative(random: Random, hard: boolean): Problem {
  const { who, action, rest } = drawSentence(random);
  const past = hard && random.chance(0.5);
  const toQuestion = random.chance(0.4);
  const from = `${who} ${past ? action.past : action.third} ${rest}.`;
  const auxiliary = past ? 'did' : 'does';
  const value = toQuestion
    ? `${capitalise(auxiliary)} ${who} ${action.base} ${rest}?`
    : `${who} ${auxiliary} not ${action.base} ${rest}.`;
  return {
    kind: 'general',
    task: 'rewrite-negative',
    easy: !hard,
    question: toQuestion
      ? random.pick([
          `Turn this sentence into a question: ${from}`,
          `Make a yes-or-no question from the sentence "${from}"`,
          `Rewrite as a question: ${from}`,
        ])
      : random.pick([
          `Make this sentence negative: ${from}`,
          `Rewrite the sentence with "not": ${from}`,
          `Say that the opposite is true: ${from}`,
        ]),
    group: `negative ${toQuestion} ${from}`,
    brief: value,
    answer: toQuestion
      ? `The question begins with "${capitalise(auxiliary)}", and the verb takes its base form "${action.base}".\nThe question is: ${value}`
      : `We add "${auxiliary} not", and the verb takes its base form "${action.base}".\nThe negative sentence is: ${value}`,
    check: { by: 'ending', value },
  };
}

function replaceWord(random: Random, hard: boolean): Problem {
  const { who, action, rest } = drawSentence(random);
  const verb = random.chance(0.5) ? action.third : action.past;
  const sentence = `${who} ${verb} ${rest}.`;
  const target = random.pick(people.filter((person) => person.name !== who)).name;
  let from = sentence;
  let value = `${target} ${verb} ${rest}.`;
  if (hard) {
    const thing = random.pick(things).one;
    const tail = ` Then ${who} takes the ${thing} home.`;
    from += tail;
    value += tail.replace(who, target);
  }
  return {
    kind: 'general',
    task: 'replace-word',
    easy: !hard,
    question: random.pick([
      `Replace the name ${who} with ${target}: ${from}`,
      `Rewrite the text so that it is about ${target} and not about ${who}.\n${from}`,
      `In this text, change "${who}" to "${target}": ${from}`,
      `Write "${from}" again, with ${target} instead of ${who}.`,
    ]),
    group: `replace ${target} ${from}`,
    brief: value,
    answer: `The name ${who} appears ${hard ? 'twice' : 'once'}, and ${target} takes its place.\nThe new text is: ${value}`,
    check: { by: 'ending', value },
  };
}

function plural(random: Random, hard: boolean): Problem {
  const thing = hard ? random.pick(animals) : random.pick(things);
  const toOne = hard && random.chance(0.4);
  const from = toOne ? thing.many : thing.one;
  const value = toOne ? thing.one : thing.many;
  const form = toOne ? 'singular' : 'plural';
  const count = random.int(2, 30);
  return {
    kind: 'general',
    task: 'plural',
    easy: !hard,
    question: toOne
      ? random.pick([
          `What is the singular of "${from}"?`,
          `We have many ${from}. How do you call just one of them?`,
        ])
      : random.pick([
          `What is the plural of "${from}"?`,
          `Write the plural form of ${from}.`,
          `Complete the sentence with the right word: one ${from}, ${count} ...`,
          `If you have more than one ${from}, what do you have?`,
        ]),
    brief: value,
    answer: `${toOne ? `The word "${from}" stands for more than one.` : `The word "${from}" stands for just one.`} The ${form} form is: ${value}`,
    check: { by: 'ending', value },
  };
}

function opposite(random: Random, hard: boolean): Problem {
  const pair = random.pick(opposites);
  const turned = random.chance(0.5);
  const from = turned ? pair[1] : pair[0];
  const value = turned ? pair[0] : pair[1];
  if (!hard) {
    const person = random.pick(people).name;
    return {
      kind: 'general',
      task: 'opposite',
      easy: true,
      question: random.pick([
        `What is the opposite of "${from}"?`,
        `Give a word that means the opposite of ${from}.`,
        `${person} says "${from}". What is the opposite?`,
        `Which word is the opposite of the word "${from}"?`,
      ]),
      brief: value,
      answer: `The words "${from}" and "${value}" are opposites of each other. The answer is: ${value}`,
      check: { by: 'ending', value },
    };
  }
  const others = random
    .sample(
      opposites.filter((candidate) => candidate !== pair),
      3,
    )
    .map((candidate) => random.pick(candidate));
  const choices = random.shuffle([value, ...others]);
  return {
    kind: 'general',
    task: 'opposite',
    easy: false,
    question: random.pick([
      `Which of these words is the opposite of "${from}": ${choices.join(', ')}?`,
      `Choose the opposite of ${from}.\n${choices.map((choice, i) => `${'ABCD'.charAt(i)}) ${choice}`).join('\n')}`,
    ]),
    group: `opposite ${from} ${choices.join(' ')}`,
    brief: value,
    answer: `The opposite of "${from}" is a word that means the contrary. Among the choices, only "${value}" does.\nThe answer is: ${value}`,
    check: { by: 'ending', value },
  };
}

/** A fact as question, short answer and the sentence that states it. */
interface Fact {
  questions: readonly string[];
  value: string;
  sentence: string;
}

/** One fact of the closed world, with several ways to ask for it. */
export function drawFact(random: Random): Fact {
  const animal = random.pick(animals);
  switch (random.int(0, 6)) {
    case 0: {
      const [country, capital] = random.pick(capitals);
      return {
        questions: [
          `What is the capital of ${country}?`,
          `Name the capital city of ${country}.`,
          `Which city is the capital of ${country}?`,
          `${country} has a capital. What is it called?`,
        ],
        value: capital,
        sentence: `${capital} is the capital of ${country}.`,
      };
    }
    case 1: {
      const [country, capital] = random.pick(capitals);
      return {
        questions: [
          `${capital} is the capital of which country?`,
          `In which country is ${capital}?`,
          `Which country has ${capital} as its capital?`,
        ],
        value: country,
        sentence: `${capital} is the capital of ${country}.`,
      };
    }
    case 2: {
      const [thing, colour] = random.pick(thingColours);
      return {
        questions: [
          `What colour is ${thing}?`,
          `Name the colour of ${thing}.`,
          `Which colour does ${thing} have?`,
        ],
        value: colour,
        sentence: `${capitalise(thing)} is ${colour}.`,
      };
    }
    case 3:
      return {
        questions: [
          `How many legs does ${withArticle(animal.one)} have?`,
          `Count the legs of ${withArticle(animal.one)}.`,
          `On how many legs does ${withArticle(animal.one)} stand?`,
        ],
        value: String(animal.legs),
        sentence: `${capitalise(withArticle(animal.one))} has ${animal.legs} legs.`,
      };
    case 4:
      return {
        questions: [
          `What is a young ${animal.one} called?`,
          `How do we call the young of ${withArticle(animal.one)}?`,
          `Name the word for a baby ${animal.one}.`,
        ],
        value: animal.young,
        sentence: `A young ${animal.one} is called a ${animal.young}.`.replace('a owlet', 'an owlet'),
      };
    case 5:
      return {
        questions: [
          `What does ${withArticle(animal.one)} eat?`,
          `What food do ${animal.many} like?`,
          `Name something that ${animal.many} eat.`,
        ],
        value: animal.eats,
        sentence: `${capitalise(animal.many)} eat ${animal.eats}.`,
      };
    default:
      return {
        questions: [
          `What do we call the sound of ${withArticle(animal.one)}?`,
          `Which sound do ${animal.many} make?`,
          `Name the sound that ${withArticle(animal.one)} makes.`,
        ],
        value: animal.sound,
        sentence: `The sound of ${withArticle(animal.one)} is called a ${animal.sound}.`.replace(
          'a oink',
          'an oink',
        ),
      };
  }
}

function worldFact(random: Random, hard: boolean): Problem {
  const fact = drawFact(random);
  const bare = random.pick(fact.questions);
  if (!hard) {
    return {
      kind: 'general',
      task: 'world-fact',
      easy: true,
      question: random.pick([
        bare,
        bare,
        `${bare} Give a short explanation.`,
        `Please answer this question: ${bare}`,
        `I have a question. ${bare}`,
      ]),
      group: bare,
      brief: fact.value,
      answer: `${fact.sentence} So the answer is: ${fact.value}`,
      check: { by: 'ending', value: fact.value },
    };
  }
  const other = drawFact(random);
  const person = random.pick(people).name;
  // Several animals share a food, so a wrong claim about food might be right after all.
  const claimed =
    random.chance(0.5) ||
    fact.sentence.includes(' eat ') ||
    /^\d+$/.test(fact.value) !== /^\d+$/.test(other.value)
      ? fact.value
      : other.value;
  const right = claimed === fact.value;
  const value = right ? 'yes' : 'no';
  return {
    kind: 'general',
    task: 'world-fact',
    easy: false,
    question: random.pick([
      `Question: ${bare} ${person} answers "${claimed}". Is that right?`,
      `${person} was asked: ${bare} The answer was "${claimed}". Is this correct? Say yes or no.`,
    ]),
    group: `${bare} ${claimed} ${person}`,
    brief: value,
    answer: `${fact.sentence} ${person} said "${claimed}", which is ${right ? 'the same' : 'something else'}.\nThe answer is: ${value}`,
    check: { by: 'ending', value },
  };
}

function dataToSentence(random: Random, hard: boolean): Problem {
  const person = random.pick(people);
  const thing = random.pick(things);
  const count = random.int(2, 40);
  const age = random.int(5, 80);
  const [country] = random.pick(capitals);
  const facts: [string, string][] = [
    [`${person.name}, age, ${age}`, `is ${age} years old`],
    [`${person.name}, home, ${country}`, `lives in ${country}`],
    [`${person.name}, ${thing.many}, ${count}`, `has ${count} ${thing.many}`],
  ];
  const chosen = random.sample(facts, hard ? 3 : 2);
  const told = chosen.map((fact) => fact[1]);
  const value = `${person.name} ${told.slice(0, -1).join(', ')} and ${told[told.length - 1]}.`;
  const data = chosen.map((fact) => fact[0]).join('; ');
  return {
    kind: 'general',
    task: 'data-to-sentence',
    easy: !hard,
    question: random.pick([
      `${data}\n\nWhat is a sentence that says this?`,
      `Write one sentence from this data: ${data}`,
      `Data: ${data}\nSay it in one sentence, in the same order.`,
    ]),
    group: `data ${data}`,
    brief: value,
    answer: `The data gives ${hard ? 'three' : 'two'} facts about ${person.name}. As one sentence: ${value}`,
    check: { by: 'ending', value },
  };
}
