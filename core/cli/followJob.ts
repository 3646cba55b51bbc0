import type { Client } from '../shared/contract/client.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { isEnded, type Job } from '../shared/job/job.ts';
import type { Output } from './Output.ts';

/**
 * Shows a job's progress until it ends. The first Ctrl-C cancels it.
 * @returns the completed job. @throws the job's own error, or `cancelled`.
 */
export async function followJob(
  client: Client,
  job: Job,
  output: Output,
  interrupted: AbortSignal,
): Promise<Job> {
  const ended = await new Promise<Job>((resolve, reject) => {
    const seen = (next: Job) => {
      if (next.id !== job.id) return;
      if (next.progress && !isEnded(next.state))
        output.progress(next.title, next.progress, next.progress.stage ?? '');
      if (!isEnded(next.state)) return;
      stop();
      resolve(next);
    };
    const cancel = () => void client.call('cancelJob', { id: job.id }).catch(() => undefined);
    const stop = () => {
      unsubscribe();
      interrupted.removeEventListener('abort', cancel);
      output.endProgress();
    };
    const unsubscribe = client.on('jobChanged', seen);
    interrupted.addEventListener('abort', cancel);
    client.onClose((reason) => {
      stop();
      reject(new CaravanError('host_unreachable', `the host went away: ${reason}`));
    });
    // The job may have ended before the subscription stood.
    client.call('getJob', { id: job.id }).then(seen, reject);
  });
  if (ended.state === 'completed') return ended;
  if (ended.error) throw CaravanError.fromData(ended.error);
  throw new CaravanError(
    ended.state === 'interrupted' ? 'interrupted' : 'cancelled',
    `${ended.title}: ${ended.state}`,
  );
}
