/** The parity gate's report as a list of checks, each with its number and its limit. */
import { formatCount, formatMetric } from '../../../core/shared/format.ts';
import type { ExportRecord, Parity } from '../../../core/shared/model/export.ts';

export interface ParityCheck {
  title: string;
  passed: boolean;
  found: string;
}

const references: Record<Parity['reference'], string> = {
  trained: 'the run as trained',
  original_base: 'the run on its base as stored',
  dequantised: 'the very weights that the file must hold',
};

/** A model as it came is itself what it is compared with. */
export function referenceWords({ run, parity }: Pick<ExportRecord, 'run' | 'parity'>): string {
  return run || parity.reference !== 'trained' ? references[parity.reference] : 'the model as it came';
}

export function parityChecks({ parity }: Pick<ExportRecord, 'parity'>): ParityCheck[] {
  const { tensors, logits, prompts } = parity;
  const wrong = tensors.wrong.length;
  // The report says whether all of it passed; what is left to the logits is what the others do not explain.
  const others = wrong === 0 && prompts.different === 0;
  const logitsPassed = parity.passed || (!others && logits.decidedOtherwise === 0 && isSmall(parity));
  return [
    {
      title: 'Every tensor',
      passed: wrong === 0,
      found:
        wrong === 0
          ? `${tensors.tensors.toLocaleString('en')} tensors, ${formatCount(tensors.elements)} numbers, all as they must be`
          : `${wrong} of ${tensors.tensors.toLocaleString('en')} tensors are not as they must be`,
    },
    {
      title: 'The logits',
      passed: logitsPassed,
      found: `${parity.limit}; found ${
        /^KL/.test(parity.limit)
          ? `${formatMetric(logits.kl)} nats, ${logits.decidedOtherwise} of ${logits.decided} clear choices otherwise`
          : formatMetric(logits.maxDifference)
      }`,
    },
    {
      title: 'The prompts',
      passed: prompts.different === 0,
      found:
        prompts.checked === 0
          ? 'the base brings no template to check'
          : prompts.different === 0
            ? `${prompts.checked} become the same tokens by the export's own tokenizer and template`
            : `${prompts.different} of ${prompts.checked} become other tokens by the export's own template`,
    },
  ];
}

/** The limits of the user guide, for a report that failed by something else. */
function isSmall({ limit, logits }: Parity): boolean {
  return /^KL/.test(limit) ? (logits.kl ?? Infinity) <= 1e-4 : (logits.maxDifference ?? Infinity) <= 1e-3;
}

/** Experts that got no token, by layer: "layer 3: 1, 5". */
export function unusedByLayer(unused: Parity['unusedExperts']): { layer: number; experts: number[] }[] {
  const layers = new Map<number, number[]>();
  for (const { layer, expert } of unused) layers.set(layer, [...(layers.get(layer) ?? []), expert]);
  return [...layers].sort((a, b) => a[0] - b[0]).map(([layer, experts]) => ({ layer, experts }));
}

export type ComparedTensor = NonNullable<Parity['tensors']['each']>[number];

/** Wrong ones first, then by the largest difference. */
export function sortTensors(
  tensors: readonly ComparedTensor[],
  by: 'difference' | 'name' | 'file',
  search: string,
): ComparedTensor[] {
  const found = tensors.filter(({ name }) => name.toLowerCase().includes(search.toLowerCase()));
  if (by === 'file') return found;
  if (by === 'name') return found.sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
  const size = ({ difference }: ComparedTensor) => difference ?? Infinity;
  return found.sort((a, b) => Number(b.wrong > 0) - Number(a.wrong > 0) || size(b) - size(a));
}
