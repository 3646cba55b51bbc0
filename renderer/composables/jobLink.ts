import type { Job } from '../../core/shared/job/job.ts';

/** Where what a job works for, or made, is looked at. */
export function jobLink({ kind, subjectId }: Job): string | null {
  if (subjectId === null) return null;
  if (kind === 'train') return `/runs/${subjectId}`;
  if (kind === 'import') return `/datasets/sources/${subjectId}`;
  if (kind === 'mix') return `/datasets/mixes/${subjectId}`;
  if (kind === 'model') return `/models/${subjectId}`;
  if (kind === 'export') return `/exports/${subjectId}`;
  if (kind === 'mix-export') return `/datasets/mixes/${subjectId}`;
  return null;
}
