import type { Message } from '../shared/dataset/source.ts';

function turn(question: string, answer: string, system?: string): Message[] {
  return [
    ...(system === undefined ? [] : [{ role: 'system' as const, content: system }]),
    { role: 'user', content: question },
    { role: 'assistant', content: answer },
  ];
}

/** What every export is asked: prose, code, arithmetic, other scripts. Changing them changes what reports say. */
export const parityConversations: readonly Message[][] = [
  turn('What is the capital of Norway?', 'The capital of Norway is Oslo.'),
  turn(
    'A farmer has 17 sheep and buys 5 more. How many legs do they have in all?',
    'He has 17 + 5 = 22 sheep, and 22 * 4 = 88 legs. The answer is 88.',
    'Explain each step.',
  ),
  turn(
    'Write a Python function that returns the largest of three numbers.',
    'def largest(a, b, c):\n    return max(a, b, c)\n',
  ),
  turn('Translate "good morning" into French, German and Japanese.', 'Bonjour; guten Morgen; おはよう.'),
  turn('List three uses of a brick.', '1. Building a wall.\n2. A doorstop.\n3. A weight for pickling.'),
  [...turn('Who wrote Hamlet?', 'William Shakespeare.'), ...turn('When?', 'Around the year 1600.')],
];
