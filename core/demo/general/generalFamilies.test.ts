import { describe, expect, it } from 'vitest';
import { generateRows } from '../generate.ts';
import type { Row } from '../generate.ts';
import { animals, capitals, categories, opposites, people, things } from '../world.ts';

const rows = [...generateRows('general', 'train', 41, 3500), ...generateRows('general', 'heldout', 42, 500)];
const names = new Set(people.map((person) => person.name));
const of = (task: string): Row[] => {
  const found = rows.filter((row) => row.task === task);
  expect(found.length, task).toBeGreaterThan(30);
  return found;
};
const wordsOf = (text: string): string[] => text.match(/[a-z]+/g) ?? [];

/** The list inside a question: its longest run of words between commas or on lines of their own. */
function listIn(question: string): string[] {
  const text = question.replace(/ and (?="?[a-z]+"?(?:\.|$| S))/, ', ').replaceAll('"', '');
  const runs = text.match(/[a-z]+(?:(?:, |\n)[a-z]+)+/g) ?? [];
  runs.sort((a, b) => b.length - a.length);
  return wordsOf(runs[0] ?? '');
}

describe('answers recomputed from the question', () => {
  it('sorted and reversed words', () => {
    for (const row of of('sort-words')) {
      const sorted = row.brief.split(', ');
      expect(sorted.slice().sort()).toEqual(sorted);
      const shown = wordsOf(row.question);
      for (const word of sorted) expect(shown, row.question).toContain(word);
      if (!row.question.includes('Here are'))
        expect(listIn(row.question).sort(), row.question).toEqual(sorted);
    }
    for (const row of of('reverse-words')) {
      const separator = row.brief.includes(', ') ? ', ' : ' ';
      const original = row.brief.split(separator).reverse().join(separator);
      expect(row.question).toContain(original);
    }
  });

  it('counts, picks and patterns', () => {
    for (const row of of('count-words'))
      expect(listIn(row.question).length, row.question).toBe(Number(row.brief));
    const ordinals = ['first', 'second', 'third', 'fourth', 'fifth', 'sixth'];
    for (const row of of('pick-word')) {
      const list = listIn(row.question.replace(/right before \w+/, ''));
      const before = /right before "(\w+)"/.exec(row.question);
      const ordinal = ordinals.findIndex((word) => row.question.includes(`${word} word`));
      const at = before
        ? list.indexOf(before[1]!) - 1
        : row.question.includes('before the last one')
          ? list.length - 2
          : row.question.includes('last word')
            ? list.length - 1
            : ordinal;
      expect(list[at], row.question).toBe(row.brief);
    }
    for (const row of of('continue-pattern')) {
      const numbers = (row.question.match(/\d+/g) ?? []).map(Number);
      if (numbers.length > 0) {
        expect(numbers[3]! + (numbers[1]! - numbers[0]!), row.question).toBe(Number(row.brief));
        continue;
      }
      const list = listIn(row.question);
      const period = list.indexOf(list[0]!, 1);
      expect(list[list.length - period], row.question).toBe(row.brief);
    }
  });

  it('members of categories and the odd one out', () => {
    const categoryOf = (word: string): string | undefined =>
      Object.keys(categories).find((name) => categories[name]!.includes(word));
    for (const row of of('select-category')) {
      const chosen = row.brief.split(', ');
      const category = categoryOf(chosen[0]!)!;
      const list = wordsOf(row.question).filter((word) => categoryOf(word) === category);
      expect(list, row.question).toEqual(chosen);
    }
    for (const row of of('odd-one-out')) {
      const list = listIn(row.question);
      const odd = list.filter(
        (word) => list.filter((other) => categoryOf(other) === categoryOf(word)).length === 1,
      );
      expect(odd, row.question).toEqual([row.brief]);
    }
  });

  it('comparisons, by following the facts', () => {
    const more = ['taller', 'older', 'faster', 'stronger', 'richer'];
    for (const row of of('compare-people')) {
      const facts = [...row.question.matchAll(/(\w+) is (\w+er) than (\w+)/g)].map(([, a, word, b]) =>
        more.includes(word!) ? [a, b] : [b, a],
      );
      const all = new Set(facts.flat());
      const wins = [...all].filter((name) => !facts.some(([, lower]) => lower === name));
      const loses = [...all].filter((name) => !facts.some(([higher]) => higher === name));
      const askedLess = /(?:Who|two) is (?:shorter|younger|slower|weaker|poorer)/.test(row.question);
      expect(askedLess ? loses : wins, row.question).toEqual([row.brief]);
    }
  });

  it('translations, by looking every word up in the glossary', () => {
    for (const row of of('glossary')) {
      const pairs = [...row.question.matchAll(/([a-z]+) = ([a-z]+)/g)].flatMap(
        ([, a, b]) =>
          [
            [a!, b!],
            [b!, a!],
          ] as const,
      );
      const book = new Map(pairs);
      const back = row.brief
        .split(' ')
        .map((word) => book.get(word))
        .join(' ');
      expect(row.question, row.brief).toContain(back);
    }
  });

  it('stated facts and what was read stand in the text', () => {
    for (const row of of('stated-fact')) {
      const all = /All \w+ .*? are (\w+)\./.exec(row.question);
      const has = /(\w+) has (an? \w+) but no (\w+)\./.exec(row.question);
      const asked = row.question.slice(row.question.indexOf('.') + 1);
      const yes = all
        ? new RegExp(`\\b${all[1]}\\b[^a-z]*\\?`).test(asked)
        : asked.includes(`have ${has![2]}?`);
      expect(row.brief, row.question).toBe(yes ? 'yes' : 'no');
    }
    for (const row of of('read-passage')) {
      const words = row.brief.split(' ');
      expect(row.question.toLowerCase(), row.brief).toContain(
        words
          .slice(/^an?$/.test(words[0]!) ? 1 : 0)
          .join(' ')
          .toLowerCase(),
      );
    }
  });

  it('rewritten sentences keep everything but what was asked', () => {
    for (const row of of('replace-word')) {
      const named = [...names].filter((name) => new RegExp(`\\b${name}\\b`).test(row.brief));
      expect(named).toHaveLength(1);
      const others = [...names].filter(
        (name) => name !== named[0] && new RegExp(`\\b${name}\\b`).test(row.question),
      );
      expect(others, row.question).toHaveLength(1);
      expect(row.question).toContain(row.brief.replaceAll(named[0]!, others[0]!));
    }
    for (const row of of('rewrite-negative')) expect(row.brief).toMatch(/ (does|did) not |^(Does|Did) /);
    for (const row of of('spell-word')) {
      const word = row.brief.toLowerCase().replace(/[- ]/g, '');
      expect(row.question).toMatch(new RegExp(`\\b${word}\\b`));
    }
  });

  it('cards and sentences carry every value of their text', () => {
    for (const row of of('fill-card')) {
      for (const line of row.brief.split('\n')) {
        const [label = '', value = ''] = line.slice('- '.length).split(': ');
        expect(row.question).toContain(label);
        expect(row.question).toContain(value);
      }
    }
    for (const row of of('data-to-sentence')) {
      for (const value of row.question.matchAll(/, \w+, (\w+)/g)) expect(row.brief).toContain(value[1]!);
    }
  });
});

describe('the world', () => {
  it('says no word twice where that would make a question unclear', () => {
    const members = Object.values(categories).flat();
    expect(new Set(members).size).toBe(members.length);
    expect(names.size).toBe(people.length);
    expect(new Set(capitals.flat()).size).toBe(capitals.length * 2);
    expect(new Set(opposites.flat()).size).toBe(opposites.length * 2);
    expect(new Set(things.map((thing) => thing.one)).size).toBe(things.length);
    expect(new Set(animals.map((animal) => animal.one)).size).toBe(animals.length);
  });
});
