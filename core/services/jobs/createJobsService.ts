import type { JobsDeps, JobsService } from './jobTypes.ts';

export function createJobsService(_deps: JobsDeps): JobsService {
  throw new Error('landed with the next change');
}
