import { drawFact } from '../general/languageFamilies.ts';
import type { Random } from '../random.ts';
import {
  actions,
  animals,
  capitalise,
  capitals,
  categories,
  categoryNoun,
  colours,
  containers,
  days,
  jobs,
  listed,
  opposites,
  people,
  places,
  spots,
  thingColours,
  things,
  withArticle,
  words,
} from '../world.ts';

/** Documents about the closed world: facts, word lists, small stories. */
export function factDocument(random: Random): string {
  return random.pick(factMakers)(random);
}

function factLines(random: Random): string {
  const lines = Array.from({ length: random.int(5, 10) }, () => drawFact(random).sentence);
  return lines.join(random.chance(0.5) ? '\n' : ' ');
}

function animalPortrait(random: Random): string {
  const animal = random.pick(animals);
  const sentences = random.shuffle([
    `${capitalise(withArticle(animal.one))} has ${animal.legs} legs.`,
    `${capitalise(animal.many)} eat ${animal.eats}.`,
    `The young of ${withArticle(animal.one)} is called a ${animal.young}.`.replace('a owlet', 'an owlet'),
    `The sound that ${animal.many} make is a ${animal.sound}.`.replace('a oink', 'an oink'),
    `The home of ${withArticle(animal.one)} is a ${animal.home}.`,
  ]);
  return `${capitalise(animal.one)}\n\n${sentences.join(' ')}`;
}

function factTable(random: Random): string {
  switch (random.int(0, 4)) {
    case 0:
      return `Country: capital\n${random
        .sample(capitals, random.int(6, 14))
        .map(([country, capital]) => `${country}: ${capital}`)
        .join('\n')}`;
    case 1:
      return `Words and their opposites\n${random
        .sample(opposites, random.int(8, 14))
        .map(([a, b]) => (random.chance(0.5) ? `${a} - ${b}` : `${b} - ${a}`))
        .join('\n')}`;
    case 2:
      return `One and many\n${random
        .sample([...things, ...animals], random.int(8, 14))
        .map((thing) => `one ${thing.one}, two ${thing.many}`)
        .join('\n')}`;
    case 3:
      return `Colours of things\n${random
        .sample(thingColours, random.int(6, 12))
        .map(([thing, colour]) => `${thing}: ${colour}`)
        .join('\n')}`;
    default:
      return `Verbs\n${random
        .sample(actions, random.int(6, 12))
        .map((verb) => `${verb.base}, ${verb.third}, ${verb.past}`)
        .join('\n')}`;
  }
}

/** Categories whose members take an article. */
const countable = ['animals', 'vehicles', 'instruments', 'furniture'];

function categoryDocument(random: Random): string {
  const names = random.sample(Object.keys(categories), random.int(2, 4));
  return names
    .map((name) => {
      const members = random.sample(categories[name] ?? [], random.int(3, 8));
      return random.chance(0.5)
        ? `${capitalise(name)}: ${members.join(', ')}.`
        : members
            .map(
              (member) =>
                `${capitalise(countable.includes(name) ? withArticle(member) : member)} is ${categoryNoun[name]}.`,
            )
            .join(' ');
    })
    .join('\n');
}

/** Spelling, first letters and alphabetical lists. */
function spellingDocument(random: Random): string {
  const drawn = random.sample(words, random.int(6, 12));
  const lines = drawn.map((word) => {
    switch (random.int(0, 4)) {
      case 0:
        return `${word}: ${[...word].join('-')}`;
      case 1:
        return `${word}: ${[...word].join(' ')}`;
      case 2:
        return `${word}: ${[...word.toUpperCase()].join('-')}`;
      case 3:
        return `The word "${word}" starts with ${word.charAt(0)} and has ${word.length} letters.`;
      default:
        return `"${word}" in capital letters is "${word.toUpperCase()}".`;
    }
  });
  if (random.chance(0.5)) return lines.join('\n');
  const sorted = random.sample(words, random.int(4, 9)).sort();
  return `${lines.slice(0, 6).join('\n')}\n\nFrom A to Z: ${sorted.join(', ')}\nFrom Z to A: ${sorted.slice().reverse().join(', ')}`;
}

const factMakers: readonly ((random: Random) => string)[] = [
  factLines,
  animalPortrait,
  factTable,
  categoryDocument,
  spellingDocument,
];

/** A small story of the closed world, with people, places, things and counts that stay consistent. */
export function narrativeDocument(random: Random): string {
  const [person, friend] = random.sample(people, 2) as [(typeof people)[0], (typeof people)[0]];
  const { name, she, her } = person;
  const She = capitalise(she);
  const sentences: string[] = [];
  const day = random.pick(days);
  const place = random.pick(places);
  sentences.push(
    random.pick([
      `It was ${day}. ${name} was ${place}.`,
      `On ${day} ${name} met ${friend.name} ${place}.`,
      `${name} is ${random.int(5, 80)} years old and works as ${random.pick(jobs)}.`,
      `${name} lives in ${random.pick(capitals)[0]}.`,
    ]),
  );
  for (let i = random.int(2, 6); i > 0; i--)
    sentences.push(storySentence(random, name, She, her, friend.name));
  return sentences.join(' ');
}

function storySentence(random: Random, name: string, She: string, her: string, friend: string): string {
  const who = random.chance(0.5) ? name : She;
  const thing = random.pick(things);
  const colour = random.pick(colours);
  switch (random.int(0, 8)) {
    case 0: {
      const action = random.pick(actions);
      return `${who} ${action.past} ${random.pick(action.rest)}.`;
    }
    case 1:
      return `${who} put the ${colour} ${thing.one} ${random.pick(spots)}.`;
    case 2: {
      const a = random.int(2, 30);
      const b = random.int(2, 30);
      return `${who} had ${a} ${thing.many} and found ${b} more ${random.pick(places)}. Now there were ${a + b} ${thing.many}.`;
    }
    case 3: {
      const a = random.int(2, 30);
      const b = random.int(2, 30);
      return `Of ${her} ${a + b} ${thing.many}, ${b} went to ${friend}. That left ${a}.`;
    }
    case 4: {
      const box = random.pick(containers);
      const a = random.int(2, 9);
      const b = random.int(2, 10);
      return `${who} filled ${a} ${box.many} with ${b} ${thing.many} each, which made ${a * b} ${thing.many}.`;
    }
    case 5:
      return `"${random.pick(['Where is', 'Have you seen', 'Who took'])} my ${thing.one}?" asked ${name}. "It is ${random.pick(spots)}," said ${friend}.`;
    case 6:
      return `${friend} bought ${withArticle(colour)} ${thing.one} for ${name}, because ${name} liked the colour ${colour}.`;
    case 7:
      return `In the bag were ${listed(random.sample(things, 3).map((one) => withArticle(one.one)))}.`;
    default: {
      const end = random.chance(0.5);
      return `The day was ${random.pick(end ? ['wonderful', 'great', 'lovely', 'perfect'] : ['terrible', 'boring', 'awful', 'very bad'])}, so ${name} was ${end ? 'happy' : 'sad'}.`;
    }
  }
}
