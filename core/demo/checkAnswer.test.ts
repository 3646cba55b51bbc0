import { describe, expect, it } from 'vitest';
import { checkAnswer, codeIn, finalNumber } from './checkAnswer.ts';
import type { Check } from './problem.ts';

const scored = (check: Check, text: string): boolean => checkAnswer({ check }, text);

describe('checkAnswer', () => {
  it('takes the number after the last "answer is", else the last number', () => {
    const check: Check = { by: 'number', value: 12 };
    for (const right of [
      '12',
      '12 apples',
      '7 + 5 = 12',
      'The answer is: 12',
      '#### 12\nThe answer is: 12',
      'The answer is 12, not 13',
    ]) {
      expect(scored(check, right), right).toBe(true);
    }
    for (const wrong of ['', 'twelve', '12 + 1 = 13', '12\nThe answer is: 13', '-12', '112', '1 2', '12.5']) {
      expect(scored(check, wrong), wrong).toBe(false);
    }
    expect(finalNumber('no number')).toBeNaN();
  });

  it('takes the last line, or what stands there after a colon, "is" or "are"', () => {
    const check: Check = { by: 'ending', value: 'apple, kite' };
    for (const right of [
      'apple, kite',
      'Apple, kite.',
      'Sorted: apple, kite',
      'First this.\nThe words are apple, kite.',
      '"apple, kite"',
    ]) {
      expect(scored(check, right), right).toBe(true);
    }
    for (const wrong of [
      'pear, apple, kite',
      'apple, kite, moon',
      'kite',
      'kite, apple',
      'apple, kite\nor not',
      'Sorted: pear, apple, kite',
    ]) {
      expect(scored(check, wrong), wrong).toBe(false);
    }
    expect(scored({ by: 'ending', value: 'yes' }, 'The eyes')).toBe(false);
    expect(scored({ by: 'ending', value: 'Mia' }, 'The answer is: Tom or Mia')).toBe(false);
  });

  it('compares lists and cards line by line from the end', () => {
    const check: Check = { by: 'block', value: '1. apple\n2. kite' };
    expect(scored(check, 'Here it is:\n1. apple\n2. kite\n')).toBe(true);
    expect(scored(check, '1. apple\n2.  kite')).toBe(true);
    expect(scored(check, '2. kite')).toBe(false);
    expect(scored(check, '1. apple\n2. kite\n3. moon')).toBe(false);
    expect(scored(check, '1. apple 2. kite')).toBe(false);
  });

  it('reads what a program prints from a block, from the text, or after a colon', () => {
    const check: Check = { by: 'output', value: 'red\nblue' };
    expect(scored(check, 'It prints:\n```\nred\nblue\n```')).toBe(true);
    expect(scored(check, 'red\nblue')).toBe(true);
    expect(scored(check, 'Output:\nred\nblue')).toBe(true);
    expect(scored(check, 'red blue')).toBe(false);
    expect(scored(check, 'red\nblue\n```\nred\n```')).toBe(false);
    expect(scored({ by: 'output', value: 'A' }, 'a')).toBe(false);
  });

  it('accepts every spelling of a program it was given, and no other program', () => {
    const check: Check = {
      by: 'code',
      accepted: ['def f(x):\n    return "a" + x', 'def f(x):\n    y = "a" + x\n    return y'],
    };
    expect(scored(check, '```python\ndef f(x):\n    return "a" + x\n```\nIt adds.')).toBe(true);
    expect(scored(check, "def f(x):\n    return 'a' + x")).toBe(true);
    expect(scored(check, 'def f(x):\n    y = "a" + x\n\n    return y\n')).toBe(true);
    expect(scored(check, 'def f(x):\nreturn "a" + x')).toBe(false);
    expect(scored(check, 'Sure! def f(x):\n    return "a" + x')).toBe(false);
    expect(codeIn('no block')).toBeNull();
  });
});
