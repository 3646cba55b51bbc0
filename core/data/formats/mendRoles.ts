import type { Message } from '../../shared/dataset/source.ts';

/**
 * Puts the turns of a conversation into an order that can train, saying only what was said: empty turns go, system prompts
 * come first as one, turns of one speaker in a row are joined, and what stands before the first question or after the last
 * answer goes. Null where that leaves no question with an answer, or would join an answer to learn from with one that is not.
 */
export function mendRoles(messages: readonly Message[]): Message[] | null {
  const said = messages.filter(({ content }) => content.trim() !== '');
  const system = said.filter(({ role }) => role === 'system').map(({ content }) => content);
  const turns: Message[] = [];
  for (const message of said) {
    if (message.role === 'system') continue;
    const last = turns.at(-1);
    if (last?.role !== message.role) {
      if (last || message.role === 'user') turns.push({ ...message });
      continue;
    }
    if (last.train !== message.train) return null;
    last.content += `\n\n${message.content}`;
  }
  while (turns.at(-1)?.role === 'user') turns.pop();
  if (turns.length === 0) return null;
  return system.length === 0 ? turns : [{ role: 'system', content: system.join('\n\n') }, ...turns];
}
