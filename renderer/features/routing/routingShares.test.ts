import { expect, test } from 'vitest';
import { conversationText, sharesByExpert } from './routingShares.ts';

const source = (name: string, any: number[]) => ({ source: name, tokens: 10, first: any, second: any, any });
const routing = {
  layers: 2,
  experts: 2,
  sources: [source('a', [1, 0, 0.5, 0.5]), source('b', [0, 1, 0, 1])],
  mutualInformation: 0.3,
};

test('shares of each expert by source, in a layer and as the mean over layers', () => {
  expect(sharesByExpert(routing, 'any', 0)).toEqual([
    [1, 0],
    [0, 1],
  ]);
  expect(sharesByExpert(routing, 'first', null)).toEqual([
    [0.75, 0],
    [0.25, 1],
  ]);
});

test('a conversation as one text', () => {
  expect(
    conversationText([
      { role: 'system', content: '' },
      { role: 'user', content: 'Hi' },
      { role: 'assistant', content: 'Hello' },
    ]),
  ).toBe('### Human:\nHi\n### Assistant:\nHello');
});
