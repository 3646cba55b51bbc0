import { CaravanError } from '../../shared/contract/errors.ts';
import { isEnded } from '../../shared/job/job.ts';
import { number, text } from '../options.ts';
import type { Verb } from '../Verb.ts';

export const verb: Verb = {
  summary: 'What is under way and what waits: list, log, move, hold, start; the history.',
  usage:
    'jobs [list | log JOB | move JOB --place N | hold JOB | release JOB | cancel JOB | start [--at TIME | --never]]',
  help: `JOB is an id, the start of one, or a title. A run is put on hold when it is started: train run.yaml --hold
--place N    of move: 1 is next
--at TIME    of start: let what is held begin then, 23:30 or 2026-11-25T23:30, instead of now
--never      of start: forget that time`,
  options: { place: { type: 'string' }, at: { type: 'string' }, never: { type: 'boolean' } },
  async run({ words, options, output, connect }) {
    const [action = 'list', ref, extra] = words;
    const client = await connect();
    const find = async () => {
      if (ref === undefined || extra !== undefined)
        throw new CaravanError('bad_option', `jobs ${action} takes one job`);
      const jobs = await client.call('listJobs', {});
      const found =
        jobs.find(({ id }) => id === ref) ??
        jobs.find(({ title, state }) => title === ref && !isEnded(state)) ??
        jobs.find(({ id, title }) => title === ref || id.startsWith(ref));
      if (!found)
        throw new CaravanError('not_found', `there is no job '${ref}'`, { mend: 'List them: caravan jobs.' });
      return found;
    };
    switch (action) {
      case 'list': {
        const jobs = await client.call('listJobs', {});
        const { startsAt } = await client.call('getQueue', {});
        output.document({ jobs, startsAt });
        const rank = (state: string, place: number | null) =>
          place !== null ? 1 : isEnded(state as never) ? 2 : 0;
        const shown = [...jobs]
          .sort((a, b) => rank(a.state, a.place) - rank(b.state, b.place) || (a.place ?? 0) - (b.place ?? 0))
          .slice(0, 50);
        if (shown.length === 0) output.line('No jobs yet.');
        else
          output.table(
            ['id', 'what', 'title', 'state', 'place', 'done'],
            shown.map(({ id, kind, title, state, place, held, progress }) => [
              id.slice(0, 8),
              kind,
              title,
              held ? 'held' : state,
              place,
              progress?.total ? `${Math.floor((100 * progress.done) / progress.total)} %` : null,
            ]),
          );
        if (startsAt !== null) output.line(`what is held begins at ${new Date(startsAt).toLocaleString()}`);
        return 0;
      }
      case 'log': {
        const log = await client.call('getJobLog', { id: (await find()).id });
        output.document(log);
        for (const line of log.lines) output.line(line);
        return 0;
      }
      case 'move': {
        const place = number(options, 'place');
        if (place === undefined || !Number.isInteger(place) || place < 1)
          throw new CaravanError('bad_option', '--place is a whole number from 1');
        const job = await client.call('moveJob', { id: (await find()).id, place });
        output.document(job);
        output.line(`${job.title}: number ${job.place}`);
        return 0;
      }
      case 'hold':
      case 'release': {
        const job = await client.call('holdJob', { id: (await find()).id, held: action === 'hold' });
        output.document(job);
        output.line(`${job.title}: ${job.held ? 'held' : 'let go'}`);
        return 0;
      }
      case 'cancel': {
        const job = await client.call('cancelJob', { id: (await find()).id });
        output.document(job);
        output.line(`${job.title}: ${job.state}`);
        return 0;
      }
      case 'start': {
        const at = text(options, 'at');
        if (options['never'] === true || at !== undefined) {
          const queue = await client.call('setQueue', { startsAt: at === undefined ? null : timeOf(at) });
          output.document(queue);
          output.line(
            queue.startsAt === null
              ? 'what is held waits until it is started'
              : `what is held begins at ${new Date(queue.startsAt).toLocaleString()}`,
          );
        } else {
          await client.call('startQueue', {});
          output.document({ startsAt: null });
          output.line('what was held has been let go');
        }
        return 0;
      }
      default:
        throw new CaravanError(
          'bad_option',
          `jobs ${action}: expected list, log, move, hold, release, cancel or start`,
        );
    }
  },
};

/** A time of today or, where that has passed, of tomorrow; or a whole date. */
function timeOf(text: string): number {
  const [, hours, minutes] = /^(\d{1,2}):(\d{2})$/.exec(text) ?? [];
  if (hours !== undefined && Number(hours) < 24 && Number(minutes) < 60) {
    const at = new Date();
    at.setHours(Number(hours), Number(minutes), 0, 0);
    if (at.getTime() <= Date.now()) at.setDate(at.getDate() + 1);
    return at.getTime();
  }
  const at = Date.parse(text);
  if (Number.isNaN(at))
    throw new CaravanError('bad_option', `--at is a time like 23:30 or 2026-11-25T23:30, not '${text}'`);
  return at;
}
