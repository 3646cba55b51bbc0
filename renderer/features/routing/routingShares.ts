/** Shares of a run's experts by source, as the routing screen shows them. Pure. */
import type { CallResult } from '../../../core/shared/contract/contract.ts';
import type { Message } from '../../../core/shared/dataset/source.ts';

export type Routing = CallResult<'route'>;
export const measures = ['any', 'first', 'second'] as const;
export type Measure = (typeof measures)[number];

/** One expert's share of each source's tokens, in one layer or as the mean over all. */
export function sharesByExpert(routing: Routing, measure: Measure, layer: number | null): number[][] {
  const { layers, experts, sources } = routing;
  const used = layer === null ? Array.from({ length: layers }, (_, index) => index) : [layer];
  return Array.from({ length: experts }, (_, expert) =>
    sources.map(
      (source) => used.reduce((sum, of) => sum + source[measure][of * experts + expert]!, 0) / used.length,
    ),
  );
}

/** A conversation as one text in the Camelidae prompt's form; what begins and ends it is the tokenizer's. */
export function conversationText(messages: readonly Message[]): string {
  const heads = { system: '### System:', user: '### Human:', assistant: '### Assistant:' };
  return messages
    .filter(({ content }) => content !== '')
    .map(({ role, content }) => `${heads[role]}\n${content}`)
    .join('\n');
}
