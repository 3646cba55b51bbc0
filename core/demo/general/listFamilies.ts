import type { FamilyEntry, Problem } from '../problem.ts';
import type { Random } from '../random.ts';
import { capitalise, categories, categoryNoun, colours, listed, people, things, words } from '../world.ts';

/** Families about lists of words: sort, reverse, pick, count, filter, number, spell, continue. */
export const listFamilies: readonly FamilyEntry[] = [
  { task: 'sort-words', weight: 9, inPretraining: true, draw: sortWords },
  { task: 'reverse-words', weight: 8, inPretraining: true, draw: reverseWords },
  { task: 'pick-word', weight: 9, inPretraining: true, draw: pickWord },
  { task: 'count-words', weight: 6, inPretraining: true, draw: countWords },
  { task: 'select-category', weight: 6, inPretraining: true, draw: selectCategory },
  { task: 'odd-one-out', weight: 8, inPretraining: false, draw: oddOneOut },
  { task: 'number-list', weight: 8, inPretraining: false, draw: numberList },
  { task: 'spell-word', weight: 4, inPretraining: true, draw: spellWord },
  { task: 'continue-pattern', weight: 5, inPretraining: true, draw: continuePattern },
];

const ordinals = ['first', 'second', 'third', 'fourth', 'fifth', 'sixth'];
const countWordsByNumber = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'];

/** Words with different first letters, so that their alphabetical order follows from these alone. */
function drawWords(random: Random, count: number): string[] {
  const drawn: string[] = [];
  while (drawn.length < count) {
    const word = random.chance(0.75)
      ? random.pick(words)
      : random.pick(random.pick(Object.values(categories)));
    if (!drawn.some((other) => other.charAt(0) === word.charAt(0))) drawn.push(word);
  }
  return drawn;
}

function sortWords(random: Random, hard: boolean): Problem {
  const list = drawWords(random, hard ? random.int(4, 6) : 3);
  const shown = list.join(', ');
  const names = list.map((word) => `"${word}"`);
  const question = random.pick([
    `Put these words in alphabetical order: ${shown}`,
    `Sort the following words from A to Z: ${shown}`,
    `Write these words in the order of the alphabet: ${shown}.`,
    `Here are ${countWordsByNumber[list.length]} words: ${listed(names)}. Sort them alphabetically.`,
    `Arrange the words below alphabetically.\n${list.join('\n')}`,
    `I need this list in alphabetical order, please: ${shown}`,
  ]);
  const sorted = list.slice().sort();
  const value = sorted.join(', ');
  const letters = sorted.map((word) => word.charAt(0)).join(', ');
  return {
    kind: 'general',
    task: 'sort-words',
    easy: !hard,
    question,
    group: `sort ${shown}`,
    brief: value,
    answer: random.pick([
      `To sort words, we compare their first letters. In the alphabet the order of these letters is ${letters}.\nThe sorted list is: ${value}`,
      `The first letters, in alphabetical order, are ${letters}. So the words in alphabetical order are: ${value}`,
    ]),
    check: { by: 'ending', value },
  };
}

function reverseWords(random: Random, hard: boolean): Problem {
  const list = drawWords(random, hard ? random.int(4, 6) : 3);
  const separator = random.chance(0.5) ? ', ' : ' ';
  const shown = list.join(separator);
  const value = list.slice().reverse().join(separator);
  const last = list[list.length - 1];
  return {
    kind: 'general',
    task: 'reverse-words',
    easy: !hard,
    question: random.pick([
      `Reverse the order of these words: ${shown}`,
      `Write the following words backwards, starting with the last one: ${shown}`,
      `Read this list from the end to the beginning: ${shown}`,
      `Turn this list around, so that "${last}" comes first: ${shown}`,
      `What do you get when you reverse the list "${shown}"?`,
    ]),
    group: `reverse ${list.join(' ')}`,
    brief: value,
    answer: random.pick([
      `The list has ${countWordsByNumber[list.length]} words. The last word, "${last}", comes first now, and "${list[0]}" comes last.\nThe reversed list is: ${value}`,
      `I start with "${last}" and go back to "${list[0]}". In reverse order the words are: ${value}`,
    ]),
    check: { by: 'ending', value },
  };
}

function pickWord(random: Random, hard: boolean): Problem {
  const list = drawWords(random, hard ? random.int(5, 6) : random.int(3, 4));
  const shown = list.join(', ');
  const fromEnd = hard && random.chance(0.4);
  const at = random.int(0, list.length - 1);
  const value = list[at] as string;
  const place = at === list.length - 1 && !hard ? 'last' : (ordinals[at] as string);
  const asked = fromEnd
    ? at === list.length - 2
      ? 'word before the last one'
      : `word that comes right before "${list[at + 1] ?? ''}"`
    : `${place} word`;
  const comesBefore = fromEnd && at < list.length - 1;
  const name = comesBefore ? asked : `${place} word`;
  return {
    kind: 'general',
    task: 'pick-word',
    easy: !hard,
    question: random.pick([
      `What is the ${name} in this list: ${shown}?`,
      `Look at these words: ${shown}. Which one is the ${name}?`,
      `List: ${shown}\nName the ${name}.`,
      `Give me the ${name} of the list "${shown}".`,
    ]),
    group: `pick ${name} ${shown}`,
    brief: value,
    answer: comesBefore
      ? `In the list, "${list[at + 1]}" is word number ${at + 2}, so the word before it is number ${at + 1}.\nThe ${name} is: ${value}`
      : random.pick([
          `Counting from the start: ${list
            .slice(0, at + 1)
            .map((word, i) => `${i + 1} ${word}`)
            .join(', ')}.\nThe ${name} is: ${value}`,
          `The list has ${list.length} words, and number ${at + 1} is what we need. The ${name} is: ${value}`,
        ]),
    check: { by: 'ending', value },
  };
}

function countWords(random: Random, hard: boolean): Problem {
  const count = hard ? random.int(5, 8) : random.int(2, 5);
  const list = drawWords(random, count);
  const shown = list.join(', ');
  return {
    kind: 'general',
    task: 'count-words',
    easy: !hard,
    question: random.pick([
      `How many words are in this list: ${shown}?`,
      `Count the words: ${shown}`,
      `How many things are named here? ${shown}`,
      `Here is a list: ${shown}. How many items does it have?`,
    ]),
    group: `count ${shown}`,
    brief: String(count),
    answer: `Let us count them: ${list.map((word, i) => `${i + 1} ${word}`).join(', ')}.\nThe list has ${count} words, so the answer is: ${count}`,
    check: { by: 'number', value: count },
  };
}

function selectCategory(random: Random, hard: boolean): Problem {
  const names = random.sample(Object.keys(categories), hard ? 3 : 2);
  const target = names[0] as string;
  const wanted = random.sample(categories[target] ?? [], hard ? random.int(2, 3) : random.int(1, 2));
  const others = names
    .slice(1)
    .flatMap((name) => random.sample(categories[name] ?? [], hard ? random.int(1, 2) : 2));
  const list = random.shuffle([...wanted, ...others]);
  const shown = list.join(', ');
  const chosen = list.filter((word) => wanted.includes(word));
  const value = chosen.join(', ');
  const noun = categoryNoun[target] ?? target;
  return {
    kind: 'general',
    task: 'select-category',
    easy: !hard,
    question: random.pick([
      `Which of these words are ${target}? ${shown}`,
      `Find every word that names ${noun}: ${shown}`,
      `From the list ${shown}, keep only the ${target}.`,
      `Take the ${target} out of this list and name them in order: ${shown}`,
    ]),
    group: `select ${target} ${shown}`,
    brief: value,
    answer: `${chosen.length === 1 ? `Only "${value}" names ${noun}` : `${capitalise(listed(chosen.map((word) => `"${word}"`)))} each name ${noun}`}. The other words name something else.\nThe ${target} in the list are: ${value}`,
    check: { by: 'ending', value },
  };
}

function oddOneOut(random: Random, hard: boolean): Problem {
  const [common = '', rare = ''] = random.sample(Object.keys(categories), 2);
  const group = random.sample(categories[common] ?? [], hard ? 4 : 3);
  const odd = random.pick(categories[rare] ?? []);
  const list = random.shuffle([...group, odd]);
  const shown = list.join(', ');
  return {
    kind: 'general',
    task: 'odd-one-out',
    easy: !hard,
    question: random.pick([
      `Which word does not belong with the others? ${shown}`,
      `Find the odd one out: ${shown}`,
      `One of these words is different from the rest. Which one? ${shown}`,
      `Three things are alike and one is not. Name the one that is not: ${shown}`.replace(
        'Three',
        hard ? 'Four' : 'Three',
      ),
    ]),
    group: `odd ${shown}`,
    brief: odd,
    answer: `${capitalise(listed(group))} are all ${common}, but ${odd} is ${categoryNoun[rare]}.\nThe odd one out is: ${odd}`,
    check: { by: 'ending', value: odd },
  };
}

function numberList(random: Random, hard: boolean): Problem {
  const list = drawWords(random, hard ? random.int(4, 5) : 3);
  const shown = random.chance(0.5) ? listed(list) : list.join(', ');
  const value = list.map((word, i) => `${i + 1}. ${word}`).join('\n');
  return {
    kind: 'general',
    task: 'number-list',
    easy: !hard,
    question: random.pick([
      `Write these words as a numbered list: ${shown}`,
      `Make a numbered list of: ${shown}`,
      `Turn the following into a numbered list, one word on each line: ${shown}`,
      `Format as a numbered list: ${shown}`,
    ]),
    group: `number ${list.join(' ')}`,
    brief: value,
    answer: `Here is the numbered list with one word on each line:\n${value}`,
    check: { by: 'block', value },
  };
}

const shortWords = words.filter((word) => word.length <= 4);
const longWords = words.filter((word) => word.length === 5 || word.length === 6);

function spellWord(random: Random, hard: boolean): Problem {
  const word = random.pick(hard ? longWords : shortWords);
  const letters = [...word];
  const form = random.int(0, 2);
  const value =
    form === 0
      ? letters.join('-')
      : form === 1
        ? letters.join(' ')
        : letters.map((letter) => letter.toUpperCase()).join('-');
  const how = [
    'with dashes between the letters',
    'with a space between the letters',
    'in capital letters with dashes',
  ][form] as string;
  return {
    kind: 'general',
    task: 'spell-word',
    easy: !hard,
    question: random.pick([
      `Spell the word "${word}" ${how}.`,
      `How do you spell ${word}? Write it ${how}.`,
      `Write the letters of "${word}" one by one, ${how}.`,
    ]),
    group: `spell ${word} ${form}`,
    brief: value,
    answer: `The word "${word}" has ${letters.length} letters and starts with ${word.charAt(0)}.\nSpelled ${how} it is: ${value}`,
    check: { by: 'ending', value },
  };
}

function continuePattern(random: Random, hard: boolean): Problem {
  if (random.chance(0.5)) {
    const step = hard ? random.int(3, 9) : random.pick([1, 2, 5, 10]);
    const down = hard && random.chance(0.4);
    const start = down ? random.int(step * 4 + 1, step * 4 + 30) : random.int(1, 40);
    const shown = [0, 1, 2, 3].map((i) => (down ? start - i * step : start + i * step));
    const last = shown[3] as number;
    const value = down ? last - step : last + step;
    const list = shown.join(', ');
    return {
      kind: 'general',
      task: 'continue-pattern',
      easy: !hard,
      question: random.pick([
        `What number comes next? ${list}, ...`,
        `Continue the pattern with one more number: ${list}`,
        `Find the next number of the sequence ${list}.`,
      ]),
      group: `pattern ${list}`,
      brief: String(value),
      answer: `Each number is ${step} ${down ? 'less' : 'more'} than the one before it. After ${last} comes ${last} ${down ? '-' : '+'} ${step} = ${value}.\nThe next number is: ${value}`,
      check: { by: 'number', value },
    };
  }
  const pool = random.chance(0.5) ? colours : random.sample(things, 8).map((thing) => thing.one);
  const unit = random.sample(pool, hard ? 3 : 2);
  const shownCount = unit.length * 2 + random.int(0, unit.length - 1);
  const shown = Array.from({ length: shownCount }, (_, i) => unit[i % unit.length] as string);
  const value = unit[shownCount % unit.length] as string;
  const list = shown.join(', ');
  const person = random.pick(people);
  return {
    kind: 'general',
    task: 'continue-pattern',
    easy: !hard,
    question: random.pick([
      `What comes next? ${list}, ...`,
      `${person.name} lays out a pattern: ${list}. What comes next?`,
      `Continue the pattern with one more word: ${list}`,
    ]),
    group: `pattern ${list}`,
    brief: value,
    answer: `The part "${unit.join(', ')}" is repeated. After ${shown[shownCount - 1]} comes ${value} again.\nThe next word is: ${value}`,
    check: { by: 'ending', value },
  };
}
