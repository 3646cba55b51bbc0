import type { Step } from '../../core/shared/run/run.ts';

export interface ExpertLoad {
  layers: number;
  experts: number;
  /** (layers x experts) share over the ideal 1/E: 1 is fair, 0 dead. */
  ratio: Float64Array;
  /** Per layer, over log E: 1 where all experts get the same, 0 where one gets all. */
  entropy: Float64Array;
  /** Got less than a twentieth of their share over all the steps looked at. */
  dead: { layer: number; expert: number }[];
  busiest: { layer: number; expert: number; ratio: number };
  /** How many steps were averaged. */
  steps: number;
}

const deadBelow = 0.05;

/** The experts' load over the last `window` steps; null where the run has no experts. */
export function expertLoad(steps: readonly Step[], experts: number, window: number): ExpertLoad | null {
  const used = steps.filter(({ expertShares }) => expertShares.length > 0).slice(-window);
  const cells = used.at(-1)?.expertShares.length ?? 0;
  if (cells === 0 || cells % experts !== 0) return null;
  const layers = cells / experts;
  const ratio = new Float64Array(cells);
  for (const { expertShares } of used)
    for (let layer = 0; layer < layers; layer++) {
      let sum = 0;
      for (let expert = 0; expert < experts; expert++) sum += expertShares[layer * experts + expert]!;
      if (sum === 0) continue;
      for (let expert = 0; expert < experts; expert++) {
        const at = layer * experts + expert;
        ratio[at]! += ((expertShares[at]! / sum) * experts) / used.length;
      }
    }
  const entropy = new Float64Array(layers);
  const dead: ExpertLoad['dead'] = [];
  let busiest = { layer: 0, expert: 0, ratio: 0 };
  for (let layer = 0; layer < layers; layer++)
    for (let expert = 0; expert < experts; expert++) {
      const load = ratio[layer * experts + expert]!;
      const share = load / experts;
      if (share > 0) entropy[layer]! -= (share * Math.log(share)) / Math.log(experts);
      if (load < deadBelow) dead.push({ layer, expert });
      if (load > busiest.ratio) busiest = { layer, expert, ratio: load };
    }
  return { layers, experts, ratio, entropy, dead, busiest, steps: used.length };
}
