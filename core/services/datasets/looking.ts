import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, isAbsolute, join } from 'node:path';
import type { RequestParams } from '../../data/protocol.ts';
import type { CallName } from '../../shared/contract/contract.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { Handlers } from '../../shared/contract/service.ts';
import type { DatasetRef, Yardstick } from '../../shared/dataset/look.ts';
import type { Mix } from '../../shared/dataset/recipe.ts';
import type { Source } from '../../shared/dataset/source.ts';
import type { Job } from '../../shared/job/job.ts';
import type { JobContext } from '../jobs/index.ts';
import type { DatasetsDeps } from './datasetTypes.ts';

export type LookCalls = Extract<
  CallName,
  | 'previewImport'
  | 'openLook'
  | 'countLook'
  | 'cancelLook'
  | 'readLook'
  | 'findLook'
  | 'describeLook'
  | 'measureDataset'
  | 'readRow'
  | 'renderRow'
  | 'readRawRow'
>;

export interface Looking {
  readonly handlers: Handlers<LookCalls>;
  /** Removes what was made to look at a dataset that is gone. */
  forget(of: DatasetRef): Promise<void>;
}

export interface LookingDeps extends Pick<DatasetsDeps, 'home' | 'emit' | 'jobs' | 'data' | 'models'> {
  sourcesDir: string;
  source: (id: string) => Source;
  mix: (id: string) => Mix;
  sources: () => Source[];
}

/** Raised when indexes of an earlier form could not be read. */
const indexVersion = 1;
/** Looking waits neither for imports nor for mixes; a second look waits for the first. */
const lane = 'looking';

/** Reads rows of sources and mixes for people who look at them, through an index that is made at the first look. */
export function createLooking(deps: LookingDeps): Looking {
  const { home, emit, jobs, data, models, sourcesDir } = deps;
  const dir = join(home, 'looking');
  const searches = new Map<string, AbortController>();
  /** Jobs under way by the file that they make. */
  const making = new Map<string, Job>();

  interface Subject {
    of: DatasetRef;
    name: string;
    needs: `source ${string}` | `mix ${string}`;
    rows: string;
    rejects: string;
    index: string;
  }
  function subject(of: DatasetRef): Subject {
    const prefix = (id: string, hash: string) => join(dir, `${of.kind}-${id}-${hash.slice(0, 12)}`);
    if (of.kind === 'source') {
      const { id, name, contentHash } = deps.source(of.id);
      return {
        of: { kind: 'source', id },
        name,
        needs: `source ${id}`,
        rows: join(sourcesDir, id, 'rows.parquet'),
        rejects: join(sourcesDir, id, 'rejects.parquet'),
        index: `${prefix(id, contentHash)}.v${indexVersion}.duckdb`,
      };
    }
    const mix = deps.mix(of.id);
    return {
      of: { kind: 'mix', id: mix.id },
      name: mix.name,
      needs: `mix ${mix.dir}`,
      rows: join(mix.dir, 'mix.parquet'),
      rejects: join(mix.dir, 'rejects.parquet'),
      index: `${prefix(mix.id, mix.contentHash)}.v${indexVersion}.duckdb`,
    };
  }

  async function tokenizerOf(yardstick: Yardstick): Promise<RequestParams<'measureRows'>['tokenizer']> {
    const { tokenizerPath, tokens } = await models.resolve(yardstick.model);
    return { path: tokenizerPath, tokens: { ...tokens, specials: [...tokens.specials] } };
  }
  async function measuresFile(what: Subject, yardstick: Yardstick): Promise<string> {
    const { tokenizerPath } = await models.resolve(yardstick.model);
    const hash = await models.tokenizerHash(tokenizerPath);
    return `${what.index}-${hash.slice(0, 12)}-${yardstick.template}-${yardstick.seqLen}.parquet`;
  }

  async function filesOf(
    of: DatasetRef,
    yardstick: Yardstick | null,
  ): Promise<RequestParams<'readLook'>['files']> {
    const what = subject(of);
    if (!existsSync(what.index))
      throw new CaravanError('wrong_state', `the rows of ${what.name} are not prepared for looking yet`, {
        mend: 'Open the dataset again.',
      });
    const measures = yardstick && (await measuresFile(what, yardstick));
    return {
      kind: of.kind,
      rows: what.rows,
      rejects: what.rejects,
      index: what.index,
      measures: measures !== null && existsSync(measures) ? measures : null,
    };
  }

  /** One job for each file, however many windows ask for it. */
  function make(
    file: string,
    kind: 'look' | 'measure',
    title: string,
    what: Subject,
    run: (context: JobContext) => Promise<unknown>,
  ): Job {
    const known = making.get(file);
    if (known) return known;
    const job = jobs.submit({
      kind,
      title,
      lane,
      subjectId: what.of.id,
      needs: [what.needs],
      run: async (context) => {
        try {
          await run(context);
        } catch (error) {
          await rm(`${file}.partial`, { force: true });
          throw error;
        } finally {
          making.delete(file);
        }
      },
      onDropped: () => making.delete(file),
    });
    making.set(file, job);
    return job;
  }

  async function forget(of: DatasetRef): Promise<void> {
    const names = await readdir(dir).catch(() => []);
    for (const name of names) {
      if (!name.startsWith(`${of.kind}-${of.id}-`)) continue;
      const file = join(dir, name);
      if (name.endsWith('.duckdb')) await data.request('closeLook', { index: file });
      await rm(file, { force: true });
    }
  }

  return {
    forget,
    handlers: {
      previewImport(request) {
        const relative = request.files.find((file) => !isAbsolute(file));
        if (relative !== undefined)
          throw new CaravanError('bad_option', `give files as absolute paths, not '${relative}'`, {
            place: { field: 'files' },
            mend: "Begin with the root of the host's disk.",
          });
        return data.request('previewImport', request);
      },
      async openLook({ of, yardstick }) {
        const what = subject(of);
        if (!existsSync(what.rows))
          throw new CaravanError('not_found', `the rows of ${what.name} are gone`, {
            place: { file: what.rows },
            mend: of.kind === 'mix' ? 'Build the mix again.' : 'Import the source again.',
          });
        const measured = yardstick !== null && existsSync(await measuresFile(what, yardstick));
        if (existsSync(what.index)) return { job: null, measured };
        const job = make(what.index, 'look', `prepare ${what.name} for looking`, what, (context) =>
          data.request(
            'prepareLook',
            { kind: of.kind, rows: what.rows, rejects: what.rejects, out: what.index },
            { signal: context.signal, onProgress: context.progress },
          ),
        );
        return { job, measured };
      },
      async countLook({ lookId, of, yardstick, query }) {
        const abort = new AbortController();
        searches.get(lookId)?.abort();
        searches.set(lookId, abort);
        try {
          return await data.request(
            'countLook',
            { files: await filesOf(of, yardstick), query },
            {
              signal: abort.signal,
              onProgress: ({ done, total }) =>
                emit('lookProgressed', { lookId, share: total === null ? null : done / total }),
            },
          );
        } finally {
          if (searches.get(lookId) === abort) searches.delete(lookId);
        }
      },
      cancelLook({ lookId }) {
        searches.get(lookId)?.abort();
        return {};
      },
      readLook: async ({ of, yardstick, query, from, count }) =>
        data.request('readLook', { files: await filesOf(of, yardstick), query, from, count }),
      findLook: async ({ of, yardstick, query, key }) =>
        data.request('findLook', { files: await filesOf(of, yardstick), query, key }),
      describeLook: async ({ of, yardstick }) =>
        data.request('describeLook', { files: await filesOf(of, yardstick) }),
      async measureDataset({ of, yardstick }) {
        const what = subject(of);
        const file = await measuresFile(what, yardstick);
        const tokenizer = await tokenizerOf(yardstick);
        return make(file, 'measure', `count the tokens of ${what.name}`, what, (context) =>
          data.request(
            'measureRows',
            {
              rows: what.rows,
              out: file,
              threads: availableParallelism(),
              tokenizer,
              template: yardstick.template,
              seqLen: yardstick.seqLen,
            },
            { signal: context.signal, onProgress: context.progress },
          ),
        );
      },
      async readRow({ of, yardstick, key }) {
        const { row, hash, messages, duplicateOf } = await data.request('readRow', {
          files: await filesOf(of, yardstick),
          key,
        });
        const source = originOf(of, row);
        return {
          row,
          hash,
          messages,
          duplicateOf,
          origin: source && { id: source.id, name: source.name, key: row.sourceRow ?? row.row },
        };
      },
      async renderRow({ of, key, yardstick }) {
        const { messages } = await data.request('readRow', { files: await filesOf(of, null), key });
        return data.request('renderRow', {
          messages,
          tokenizer: await tokenizerOf(yardstick),
          template: yardstick.template,
          seqLen: yardstick.seqLen,
        });
      },
      async readRawRow({ of, key }) {
        const { row, messages } = await data.request('readRow', { files: await filesOf(of, null), key });
        const source = originOf(of, row);
        const file = source?.files.find((path) => basename(path) === row.file);
        if (!source || file === undefined)
          return {
            text: null,
            unchanged: null,
            problem: 'its source is no longer in the library',
            file: row.file,
          };
        const { mapping } = source;
        const raw = await data.request('readRawRow', {
          file,
          line: row.line,
          format: source.format,
          ...(mapping && { mapping }),
          messages,
        });
        return { ...raw, file };
      },
    },
  };

  /** Of a mix's row: the source of the library that it came from, by its name in the recipe, else by its file. */
  function originOf(of: DatasetRef, row: { source: string | null; file: string }): Source | null {
    if (of.kind === 'source') return deps.source(of.id);
    const named = deps.mix(of.id).recipe.sources.find(({ name }) => name === row.source);
    const holds = (source: Source) => source.files.some((path) => basename(path) === row.file);
    const known = deps.sources();
    return (
      known.find(
        (source) => (source.name === named?.source || source.id === named?.source) && holds(source),
      ) ??
      known.find(holds) ??
      null
    );
  }
}
