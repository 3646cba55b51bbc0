import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { wallClock } from '../../shared/clock.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { differences } from '../../shared/dataset/mixExport.ts';
import { recipeProblems, type Mix, type Recipe } from '../../shared/dataset/recipe.ts';
import type { Source } from '../../shared/dataset/source.ts';
import {
  isHubReference,
  parseHubReference,
  type HubAccess,
  type HubOrigin,
} from '../../shared/hub/hubReference.ts';
import { checkName } from '../../shared/names.ts';
import { createPauseGate, type PauseGate } from '../hub/index.ts';
import type { JobContext } from '../jobs/index.ts';
import type { ResolvedModel } from '../models/index.ts';
import { createMixTable, createSourceTable } from './datasetTables.ts';
import type { Datasets, DatasetsDeps, DatasetsService } from './datasetTypes.ts';
import { createLooking } from './looking.ts';
import { dataMemoryLimit, fingerprintOf, importFiles, nameOfFiles, refuseTakenName } from './importFiles.ts';
import { checkEmpty, checkReplaceable, readMixFolder } from './mixFolder.ts';
import { createPreviewing } from './previewing.ts';

/** Imports and mixes go one after the other: each may use the data process's whole memory. */
const lane = 'curation';

/** Sources and mixes: what was imported, what was built from it, and where it lies. */
export function createDatasetsService(deps: DatasetsDeps): DatasetsService {
  const { store, home, emit, jobs, data, hub, models, clock = wallClock } = deps;
  const sources = createSourceTable(store);
  const mixes = createMixTable(store);
  const sourcesDir = join(home, 'sources');
  const mixesDir = join(home, 'mixes');
  const importing = { sources, data, sourcesDir, now: () => clock.now() };
  const cleaned = Promise.all([removePartial(sourcesDir), removePartial(mixesDir)]);

  function sourceOf(ref: string): Source {
    const source = sources.find(ref);
    if (!source)
      throw new CaravanError('not_found', `there is no source '${ref}' in the library`, {
        mend: 'Import it: caravan import FILE.',
      });
    return source;
  }

  const datasets: Datasets = {
    async findMix(ref) {
      const known = mixes.find(ref) ?? (isAbsolute(ref) ? mixes.find(resolve(ref)) : null);
      if (known) return readMixFolder(known.dir, known);
      if (!isAbsolute(ref) && !existsSync(ref))
        throw new CaravanError('not_found', `'${ref}' is no mix in the library and no folder`, {
          mend: 'Build it: caravan mix recipe.yaml.',
        });
      return readMixFolder(resolve(ref), null);
    },
  };

  /** Files as they are on this machine: those of a hub are downloaded. */
  async function localFiles(
    paths: readonly string[],
    access: HubAccess | undefined,
    context: JobContext,
    gate?: PauseGate,
  ): Promise<{ files: string[]; origins: HubOrigin[] }> {
    const files: string[] = [];
    const origins: HubOrigin[] = [];
    for (const path of paths) {
      if (!isHubReference(path)) {
        files.push(path);
        continue;
      }
      const fetched = await hub.fetch({ kind: 'dataset', reference: path, access }, context, gate);
      files.push(...fetched.files);
      origins.push(fetched.plan.origin);
    }
    return { files, origins };
  }

  /** The sources of a recipe, imported on the way where they are files. */
  async function gatherSources(
    recipe: Recipe,
    baseDir: string,
    access: HubAccess | undefined,
    context: JobContext,
  ): Promise<Source[]> {
    const gathered: Source[] = [];
    for (const [index, { name, source, path, hub: dataset, format, mapping }] of recipe.sources.entries()) {
      if (source !== undefined) {
        const known = sources.find(source);
        if (!known)
          throw new CaravanError(
            'not_found',
            `source '${name}' of the recipe names '${source}', which is not in the library`,
            {
              place: { field: `sources[${index}].source` },
              mend: 'Import it (caravan import FILE), or give its files with path:.',
            },
          );
        context.need(`source ${known.id}`);
        gathered.push(known);
        continue;
      }
      const wanted = dataset === undefined ? [path!].flat() : [asHubReference(dataset)];
      const { files, origins } = await localFiles(
        wanted.map((file) => (isHubReference(file) ? file : resolve(baseDir, file))),
        access,
        context,
      );
      const known = sources.findByFingerprint(await fingerprintOf({ files, format, mapping }));
      const found =
        known ??
        (await importFiles(
          { files, name: usualName(wanted), exact: false, format, mapping, origins },
          importing,
          context,
        ));
      context.need(`source ${found.id}`);
      gathered.push(found);
      if (!known) emit('sourcesChanged', {});
    }
    return gathered;
  }

  /** The recipe's model: relative folders start at the recipe. */
  function resolveModel(ref: string, baseDir: string): Promise<ResolvedModel> {
    const folder = resolve(baseDir, ref);
    const looksLikePath = ref.startsWith('.') || ref.includes('/') || ref.includes('\\');
    return models.resolve(looksLikePath && existsSync(folder) ? folder : ref);
  }

  /** What the data process is asked for a recipe, but for the place of the result. */
  async function gather(recipe: Recipe, baseDir: string, access: HubAccess | undefined, context: JobContext) {
    const model = recipe.model === undefined ? null : await resolveModel(recipe.model, baseDir);
    if (model) context.need(`model ${model.dir}`);
    const gathered = await gatherSources(recipe, baseDir, access, context);
    return {
      recipe,
      sources: gathered.map(({ id, contentHash }) => ({ dir: join(sourcesDir, id), contentHash })),
      benchmarks: (recipe.decontaminate?.benchmarks ?? []).map(({ path }) =>
        [path].flat().map((file) => resolve(baseDir, file)),
      ),
      tokenizer: model && {
        path: model.tokenizerPath,
        hash: await models.tokenizerHash(model.tokenizerPath),
        modelName: model.name,
        tokens: { ...model.tokens, specials: [...model.tokens.specials] },
      },
      memoryLimit: dataMemoryLimit,
      threads: availableParallelism(),
    };
  }

  /** What is wrong with a recipe before any row is read. */
  function checkRecipe(recipe: Recipe, paths: Record<string, string | undefined>): void {
    checkName(recipe.name);
    for (const [field, path] of Object.entries(paths))
      if (path !== undefined && !isAbsolute(path))
        throw new CaravanError('bad_option', `${field} must be an absolute path, not '${path}'`, {
          place: { field },
        });
    for (const { path, hub: dataset } of recipe.sources)
      for (const file of dataset === undefined ? [path ?? []].flat() : [asHubReference(dataset)])
        if (isHubReference(file)) parseHubReference(file);
    const [problem] = recipeProblems(recipe);
    if (problem)
      throw new CaravanError('bad_recipe', problem.message, {
        place: { field: problem.field },
        mend: problem.mend,
      });
  }

  function sourcesNeeded(recipe: Recipe): `source ${string}`[] {
    return recipe.sources.flatMap(({ source }) => {
      const known = source === undefined ? null : sources.find(source);
      return known ? [`source ${known.id}` as const] : [];
    });
  }

  async function buildMix(
    recipe: Recipe,
    baseDir: string,
    outDir: string | undefined,
    access: HubAccess | undefined,
    context: JobContext,
  ): Promise<void> {
    await cleaned;
    const before = new Set(sources.list().map(({ id }) => id));
    const request = await gather(recipe, baseDir, access, context);
    const known = outDir === undefined ? null : mixes.find(outDir);
    const id = known?.id ?? randomUUID();
    const dir = outDir ?? join(mixesDir, id);
    await checkReplaceable(dir);
    await mkdir(dirname(dir), { recursive: true });
    const imported = sources.list().flatMap(({ id: own, name }) => (before.has(own) ? [] : [name]));
    const result = await data
      .request(
        'buildMix',
        { ...request, outDir: dir },
        { signal: context.signal, onProgress: context.progress },
      )
      .catch(async (error: unknown) => {
        // A process that was ended in the midst of it could not tidy up.
        await rm(join(dirname(dir), `.${basename(dir)}.partial`), { recursive: true, force: true });
        if (imported.length > 0)
          context.log(`kept: what was imported on the way (${imported.join(', ')}); nothing of the mix`);
        throw error;
      });
    const mix: Mix = {
      ...result,
      id,
      name: recipe.name,
      dir,
      model: request.tokenizer?.modelName ?? null,
      template: request.tokenizer && recipe.template,
      seqLen: request.tokenizer && recipe.seqLen,
      recipe,
      builtAt: clock.now(),
    };
    const twin = outDir === undefined ? mixes.find(recipe.name) : null;
    if (twin?.contentHash === mix.contentHash && existsSync(join(twin.dir, 'manifest.json'))) {
      await rm(dir, { recursive: true, force: true });
      context.log(`the same bytes as the mix that is there: ${twin.dir}`);
      context.setSubject(twin.id);
      return;
    }
    const moved = mixes.save(mix);
    if (moved !== null) context.log(`the earlier mix named ${mix.name} is called ${moved} now`);
    for (const source of mix.sources)
      context.log(
        `${source.name}: ${source.rowsIn} rows in, ${source.rows} trained, ${source.validationRows} held out`,
      );
    context.setSubject(id);
    emit('mixesChanged', {});
  }

  function mixOf(id: string): Mix {
    const mix = mixes.find(id);
    if (!mix)
      throw new CaravanError('not_found', `there is no mix '${id}' in the library`, {
        mend: 'Build it: caravan mix recipe.yaml.',
      });
    return mix;
  }

  const looking = createLooking({
    home,
    emit,
    jobs,
    data,
    models,
    sourcesDir,
    source: sourceOf,
    mix: mixOf,
    sources: () => sources.list(),
  });

  const previewing = createPreviewing({
    home,
    jobs,
    data,
    lane,
    check: checkRecipe,
    gather,
    needsOf: sourcesNeeded,
    findMix: (id) => mixes.find(id),
  });

  return {
    datasets,
    handlers: {
      ...looking.handlers,
      ...previewing.handlers,
      listTrash: () => ({ sources: sources.listTrash(), mixes: mixes.listTrash() }),
      trashDataset({ of }) {
        if (of.kind === 'source') {
          const source = sourceOf(of.id);
          jobs.checkUnneeded(`source ${source.id}`, `source '${source.name}'`);
          sources.trash(source.id, clock.now());
        } else {
          const mix = mixOf(of.id);
          jobs.checkUnneeded(`mix ${mix.dir}`, `mix '${mix.name}'`);
          mixes.trash(mix.id, clock.now());
        }
        emit(of.kind === 'source' ? 'sourcesChanged' : 'mixesChanged', {});
        return {};
      },
      restoreDataset({ of }) {
        const name =
          of.kind === 'source' ? sources.restore(sourceOf(of.id).id) : mixes.restore(mixOf(of.id).id);
        emit(of.kind === 'source' ? 'sourcesChanged' : 'mixesChanged', {});
        return { name };
      },
      importSource({ files: paths, name, format, mapping, access }) {
        const relative = paths.find((file) => !isAbsolute(file) && !isHubReference(file));
        if (relative !== undefined)
          throw new CaravanError('bad_option', `give files as absolute paths, not '${relative}'`, {
            place: { field: 'files' },
          });
        for (const path of paths) if (isHubReference(path)) parseHubReference(path);
        if (name !== undefined) {
          checkName(name);
          refuseTakenName(sources, name);
        }
        const wanted = name ?? usualName(paths);
        const downloads = paths.some(isHubReference);
        const gate = createPauseGate();
        return jobs.submit({
          kind: 'import',
          title: `import ${wanted}`,
          lane: downloads ? 'hub' : lane,
          ...(downloads && { pausing: gate }),
          async run(context) {
            const { files, origins } = await localFiles(paths, access, context, gate);
            if (downloads) {
              context.endPausing();
              // Others curate while it downloads.
              await context.enterLane(lane);
            }
            await cleaned;
            const request = { files, name: wanted, exact: name !== undefined, format, mapping, origins };
            const source = await importFiles(request, importing, context);
            context.setSubject(source.id);
            emit('sourcesChanged', {});
          },
        });
      },
      listSources: () => sources.list(),
      getSource: ({ id }) => sourceOf(id),
      readSourceRows: ({ id, after, limit }) =>
        data.request('readSourceRows', { dir: join(sourcesDir, sourceOf(id).id), after, limit }),
      readSourceRejects: ({ id, after, limit }) =>
        data.request('readRejects', { dir: join(sourcesDir, sourceOf(id).id), after, limit }),
      async removeSource({ id }) {
        const source = sourceOf(id);
        jobs.checkUnneeded(`source ${source.id}`, `source '${source.name}'`);
        sources.remove(source.id);
        emit('sourcesChanged', {});
        await looking.forget({ kind: 'source', id: source.id });
        await rm(join(sourcesDir, source.id), { recursive: true, force: true });
        return {};
      },
      buildMix({ recipe, baseDir, outDir, access }) {
        checkRecipe(recipe, { baseDir, outDir });
        return jobs.submit({
          kind: 'mix',
          title: `mix ${recipe.name}`,
          lane,
          needs: sourcesNeeded(recipe),
          run: (context) =>
            buildMix(recipe, baseDir, outDir === undefined ? undefined : resolve(outDir), access, context),
        });
      },
      listMixes: () => mixes.list(),
      getMix: ({ id }) => mixOf(id),
      readMixRows: ({ id, split, after, limit }) =>
        data.request('readMixRows', { dir: mixOf(id).dir, split, after, limit }),
      exportMix({ id, format, outDir }) {
        const { id: own, builtAt: _builtAt, ...mix } = mixOf(id);
        if (!isAbsolute(outDir))
          throw new CaravanError('bad_option', `outDir must be an absolute path, not '${outDir}'`, {
            place: { field: 'outDir' },
          });
        return jobs.submit({
          kind: 'mix-export',
          title: `export ${mix.name} as ${format}`,
          lane,
          needs: [`mix ${mix.dir}`],
          async run(context) {
            await checkEmpty(outDir);
            const result = await data
              .request(
                'exportMix',
                { mix, format, outDir },
                { signal: context.signal, onProgress: context.progress },
              )
              .catch(async (error: unknown) => {
                // A process that was ended in the midst of it could not tidy up.
                await rm(`${outDir}.partial`, { recursive: true, force: true });
                throw error;
              });
            for (const { name, rows } of result.files) context.log(`${name}: ${rows} rows`);
            for (const [why, rows] of Object.entries(result.leftOut))
              context.log(`left out: ${rows} rows: ${why}`);
            context.setSubject(own);
          },
        });
      },
      async compareMixes({ from, to }) {
        const [before, after] = [(await datasets.findMix(from)).mix, (await datasets.findMix(to)).mix];
        const rows = await data.request('compareMixes', { from: before.dir, to: after.dir });
        const differ = <K extends 'model' | 'template'>(key: K) =>
          before[key] === after[key] ? null : { from: before[key], to: after[key] };
        return {
          ...rows,
          recipe: differences({ ...before.recipe, model: undefined }, { ...after.recipe, model: undefined }),
          model: differ('model'),
          template: differ('template'),
        };
      },
      async removeMix({ id }) {
        const mix = mixOf(id);
        jobs.checkUnneeded(`mix ${mix.dir}`, `mix '${mix.name}'`);
        mixes.remove(mix.id);
        emit('mixesChanged', {});
        await looking.forget({ kind: 'mix', id: mix.id });
        // A folder of the user's own choice stays the user's.
        if (dirname(mix.dir) === mixesDir) await rm(mix.dir, { recursive: true, force: true });
        return {};
      },
    },
    async close() {
      await Promise.all([cleaned, previewing.cleaned]);
    },
  };
}

/** A dataset is called what its repository is called, files what the first of them is. */
function usualName(paths: readonly string[]): string {
  const first = paths[0]!;
  return isHubReference(first) ? parseHubReference(first).id.split('/').at(-1)! : nameOfFiles(paths);
}

function asHubReference(dataset: string): string {
  return isHubReference(dataset) ? dataset : `hub:${dataset}`;
}

/** What a data process that was killed left half-written. */
async function removePartial(dir: string): Promise<void> {
  const names = await readdir(dir).catch(() => []);
  await Promise.all(
    names
      .filter((name) => name.endsWith('.partial'))
      .map((name) => rm(join(dir, name), { recursive: true, force: true })),
  );
}
