import type { Client } from '../shared/contract/client.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { formatCount, formatMetric } from '../shared/format.ts';
import type { Run, RunState } from '../shared/run/run.ts';
import type { Output } from './Output.ts';

const ended: readonly RunState[] = ['completed', 'stopped', 'failed', 'interrupted'];

/**
 * Shows a run until it ends. The first Ctrl-C asks it to stop with a checkpoint; closing the terminal leaves it running.
 * @returns the run as it ended.
 */
export function followRun(client: Client, run: Run, output: Output, interrupted: AbortSignal): Promise<Run> {
  return new Promise((resolve, reject) => {
    let totalSteps = run.totalSteps;
    const seen = (next: Run) => {
      if (next.id !== run.id) return;
      totalSteps = next.totalSteps;
      if (!ended.includes(next.state)) return;
      cleanUp();
      resolve(next);
    };
    const stop = () => {
      output.remark('stopping with a checkpoint; press Ctrl-C again to leave the run to itself');
      void client.call('stopRun', { id: run.id }).catch(() => undefined);
    };
    const subscriptions = [
      client.on('runChanged', seen),
      client.on('runStepped', ({ id, steps }) => {
        const step = steps.at(-1);
        if (id !== run.id || !step) return;
        output.progress(
          run.name,
          { done: step.step, total: totalSteps, unit: 'steps', rate: null, etaMs: null },
          `loss ${formatMetric(step.loss)} · ${formatCount(Math.round(step.tokensPerSecond))} tokens/s`,
        );
      }),
      client.on('runEvaluated', ({ id, evaluation }) => {
        if (id !== run.id) return;
        const bySource = evaluation.bySource.map((s) => `${s.source} ${formatMetric(s.loss)}`).join(', ');
        output.remark(
          `step ${evaluation.step}: held-out loss ${formatMetric(evaluation.loss)} (${bySource})`,
        );
      }),
    ];
    const cleanUp = () => {
      for (const unsubscribe of subscriptions) unsubscribe();
      interrupted.removeEventListener('abort', stop);
      output.endProgress();
    };
    interrupted.addEventListener('abort', stop);
    client.onClose((reason) => {
      cleanUp();
      reject(
        new CaravanError('host_unreachable', `the host went away: ${reason}`, {
          mend: `caravan train --resume ${run.id}`,
        }),
      );
    });
    client.call('getRun', { id: run.id }).then(seen, reject);
  });
}
