export { createJobsService } from './createJobsService.ts';
export type { JobCalls, JobContext, Jobs, JobsDeps, JobsService, JobTask, Needed } from './jobTypes.ts';
