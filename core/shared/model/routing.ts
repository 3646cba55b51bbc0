/** What the counts of a crafted model's router say. Pure. */
export interface RoutingCounts {
  layers: number;
  experts: number;
  groups: number;
  /** (groups, layers, experts): tokens that chose the expert in any slot. */
  any: ArrayLike<number>;
}

/**
 * Mutual information (nats) between a token's experts, all slots alike, and its source; sources weigh the same however
 * many tokens they have; mean over layers. 0: experts say nothing of the source; ln(sources) at most.
 * @returns null where fewer than two sources have tokens
 */
export function mutualInformation({ layers, experts, groups, any }: RoutingCounts): number | null {
  let total = 0;
  for (let layer = 0; layer < layers; layer++) {
    const shares: number[][] = [];
    for (let group = 0; group < groups; group++) {
      const from = (group * layers + layer) * experts;
      const counts = Array.from({ length: experts }, (_, expert) => any[from + expert] ?? 0);
      const sum = counts.reduce((a, b) => a + b, 0);
      if (sum > 0) shares.push(counts.map((count) => count / sum));
    }
    if (shares.length < 2) return null;
    for (let expert = 0; expert < experts; expert++) {
      const mean = shares.reduce((sum, share) => sum + share[expert]!, 0) / shares.length;
      for (const share of shares) {
        const p = share[expert]!;
        if (p > 0) total += (p * Math.log(p / mean)) / shares.length;
      }
    }
  }
  return layers === 0 ? null : total / layers;
}
