import type { BenchmarkInspection } from '../../shared/dataset/decontamination.ts';
import { countWords } from './commonWords.ts';
import { readBenchmark } from './readBenchmark.ts';
import type { RequestParams } from '../protocol.ts';

const sampleItems = 5;
/** The floor that a recipe has unless it says else. */
const usualFloor = 8;

export async function inspectBenchmark({
  benchmark,
  files,
}: RequestParams<'inspectBenchmark'>): Promise<BenchmarkInspection> {
  const { items, ...summary } = await readBenchmark(benchmark, files);
  const short = items.filter(({ prompts, answers }) =>
    [...prompts, ...answers].every((text) => countWords(text) < usualFloor),
  );
  return { ...summary, items: items.length, shortItems: short.length, sample: items.slice(0, sampleItems) };
}
