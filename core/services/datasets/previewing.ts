/** Looking at what a recipe would do, and at what a mix left out and why. */
import { randomUUID } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import type { DataProcess } from '../../data/client.ts';
import type { RequestParams } from '../../data/protocol.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { Service } from '../../shared/contract/service.ts';
import type { MixPreview } from '../../shared/dataset/preview.ts';
import type { Mix, Recipe } from '../../shared/dataset/recipe.ts';
import type { HubAccess } from '../../shared/hub/hubReference.ts';
import type { JobContext, Jobs } from '../jobs/index.ts';

export type PreviewCalls =
  'previewMix' | 'readMixPreview' | 'readMixRejects' | 'readContamination' | 'inspectBenchmark';

/** Previews kept; each is a few megabytes. */
const keptPreviews = 4;

export interface PreviewingDeps {
  home: string;
  jobs: Jobs;
  data: DataProcess;
  lane: string;
  /** @throws what is wrong with it before any row is read */
  check(recipe: Recipe, paths: Record<string, string | undefined>): void;
  /** Imports on the way, and finds the model. */
  gather(
    recipe: Recipe,
    baseDir: string,
    access: HubAccess | undefined,
    context: JobContext,
  ): Promise<Omit<RequestParams<'previewMix'>, 'outDir'>>;
  needsOf(recipe: Recipe): `source ${string}`[];
  findMix(id: string): Mix | null;
}

export function createPreviewing(deps: PreviewingDeps) {
  const { home, jobs, data } = deps;
  const dir = join(home, 'previews');
  /** They are of no use to the next host. */
  const cleaned = rm(dir, { recursive: true, force: true });
  const kept: string[] = [];

  /** The folder of a mix or of a preview. */
  function folderOf(id: string): string {
    if (kept.includes(id)) return join(dir, id);
    const mix = deps.findMix(id);
    if (mix) return mix.dir;
    throw new CaravanError('not_found', `there is no mix or preview '${id}'`, {
      mend: 'Build the mix, or preview its recipe again: only the newest previews are kept.',
    });
  }

  async function preview(
    recipe: Recipe,
    baseDir: string,
    access: HubAccess | undefined,
    context: JobContext,
  ): Promise<void> {
    await cleaned;
    const id = randomUUID();
    const outDir = join(dir, id);
    const request = { ...(await deps.gather(recipe, baseDir, access, context)), outDir };
    await data
      .request('previewMix', request, { signal: context.signal, onProgress: context.progress })
      .catch(async (error: unknown) => {
        // A process that was ended in the midst of it could not tidy up.
        await rm(`${outDir}.partial`, { recursive: true, force: true });
        throw error;
      });
    kept.push(id);
    for (const old of kept.splice(0, Math.max(0, kept.length - keptPreviews)))
      await rm(join(dir, old), { recursive: true, force: true });
    context.setSubject(id);
  }

  const handlers: Service<PreviewCalls>['handlers'] = {
    previewMix({ recipe, baseDir, access }) {
      deps.check(recipe, { baseDir });
      return jobs.submit({
        kind: 'preview',
        title: `preview ${recipe.name}`,
        lane: deps.lane,
        needs: deps.needsOf(recipe),
        run: (context) => preview(recipe, baseDir, access, context),
      });
    },
    async readMixPreview({ id }) {
      if (!kept.includes(id))
        throw new CaravanError('not_found', `there is no preview '${id}'`, {
          mend: 'Preview the recipe again: only the newest few are kept.',
        });
      const stored = JSON.parse(await readFile(join(dir, id, 'preview.json'), 'utf8')) as Omit<
        MixPreview,
        'id'
      >;
      return { ...stored, id };
    },
    readMixRejects: ({ id, ...query }) => data.request('readMixRejects', { dir: folderOf(id), ...query }),
    readContamination: ({ id, ...query }) =>
      data.request('readContamination', { dir: folderOf(id), ...query }),
    inspectBenchmark({ benchmark }) {
      const files = [benchmark.path].flat();
      const relative = files.find((file) => !isAbsolute(file));
      if (relative !== undefined)
        throw new CaravanError('bad_option', `give files as absolute paths, not '${relative}'`, {
          place: { field: 'benchmark.path' },
        });
      return data.request('inspectBenchmark', { benchmark, files });
    },
  };
  return { handlers, cleaned };
}
