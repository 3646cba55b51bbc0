/** What the router did with each token, as the lens shows it. Pure. */
import type { TokenRoutes } from '../../../core/shared/chat/chat.ts';

/** A token's first expert: in one layer, or the one that most layers chose first (the lowest of equals). */
export function firstExpert(
  { layers, experts, topK, chosen }: TokenRoutes,
  token: number,
  layer: number | null,
): number {
  const at = (of: number) => chosen[(token * layers + of) * topK]!;
  if (layer !== null) return at(layer);
  const votes = new Uint32Array(experts);
  for (let of = 0; of < layers; of++) votes[at(of)]!++;
  return votes.indexOf(Math.max(...votes));
}

/** Per layer, the experts of a token with their weights, best first. */
export function expertsOfToken(
  { layers, topK, chosen, weights }: TokenRoutes,
  token: number,
): { layer: number; slots: { expert: number; weight: number }[] }[] {
  return Array.from({ length: layers }, (_, layer) => ({
    layer,
    slots: Array.from({ length: topK }, (__, slot) => {
      const place = (token * layers + layer) * topK + slot;
      return { expert: chosen[place]!, weight: weights[place]! };
    }),
  }));
}

/** How many of some tokens each expert got first. */
export function firstCounts(routes: TokenRoutes, tokens: readonly number[], layer: number | null): number[] {
  const counts = new Array<number>(routes.experts).fill(0);
  for (const token of tokens) counts[firstExpert(routes, token, layer)]!++;
  return counts;
}
