import { shallowRef, watch, type Ref } from 'vue';
import type { StepRange } from '../../charts/chartLines.ts';
import type { MetricSeries } from '../../stores/MetricSeries.ts';
import { useMetricStore, type RunMetrics } from '../../stores/metricStore.ts';

type Detail = Map<string, MetricSeries>;

/**
 * The part of a run's course that is in view, as finely as there are pixels, with as much again on either side: a view
 * that moves finds its neighbourhood there. One read at a time; until it is there, the merged points stand in.
 * @returns null where the whole course is fine enough
 */
export function useDetail(
  runId: () => string,
  metrics: () => RunMetrics,
  range: Readonly<Ref<StepRange | null>>,
): Readonly<Ref<Detail | null>> {
  const metricStore = useMetricStore();
  const detail = shallowRef<Detail | null>(null);
  let held: StepRange | null = null;
  let reading = false;

  const serves = (part: StepRange, view: StepRange) => {
    const { steps } = metrics().series.get('loss')!;
    const inside =
      (view.from >= part.from || part.from <= steps[0]!) &&
      (view.to <= part.to || part.to >= steps[steps.length - 1]!);
    // Twice zoomed in, its points are too coarse.
    return inside && part.to - part.from <= 6.5 * (view.to - view.from);
  };

  async function follow(): Promise<void> {
    if (reading) return;
    for (;;) {
      const view = range.value;
      if (view === null || !metrics().series.get('loss')?.merged) {
        held = detail.value = null;
        return;
      }
      if (held && serves(held, view)) return;
      const width = view.to - view.from;
      const part = { from: Math.floor(view.from - width), to: Math.ceil(view.to + width) };
      reading = true;
      try {
        const names = [...metrics().series.keys()];
        const read = await metricStore.readDetail(runId(), names, Math.max(0, part.from), part.to);
        if (range.value !== null) {
          detail.value = read;
          held = part;
        }
      } catch {
        // The merged points stay; they are right, only coarser.
        return;
      } finally {
        reading = false;
      }
    }
  }
  watch(range, follow);
  watch(runId, () => (held = detail.value = null));
  return detail;
}
