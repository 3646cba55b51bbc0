export { createJobsService } from './createJobsService.ts';
export type { JobCalls, JobContext, Jobs, JobsDeps, JobsService, JobTask } from './jobTypes.ts';
