import { randomUUID } from 'node:crypto';
import { constants, existsSync } from 'node:fs';
import { access, readdir, readFile, stat, statfs } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { wallClock } from '../../shared/clock.ts';
import { CaravanError, type ContractErrorData } from '../../shared/contract/errors.ts';
import {
  exportFormats,
  exportLayouts,
  exportRecordSchema,
  isAdapterLayout,
  type Export,
  type ExportLayout,
  type ExportType,
} from '../../shared/model/export.ts';
import { isGgufPath } from '../../shared/model/modelPath.ts';
import type { CallParams } from '../../shared/contract/contract.ts';
import type { ResolvedModel } from '../models/index.ts';
import { exportedOf } from './exportedModel.ts';
import type { ExportsDeps, ExportsService } from './exportTypes.ts';

/** Carries runs out: each export is a job, and stays listed with what the parity gate found. */
export function createExportsService(deps: ExportsDeps): ExportsService {
  const { store, emit, jobs, models, engines, clock = wallClock } = deps;
  const parse = (row: { record: string }) => JSON.parse(row.record) as Export;

  function keep(made: Export): void {
    // A folder that was removed and exported to again is one export.
    store.run('DELETE FROM exports WHERE dir = ?', [made.dir]);
    store.run('INSERT INTO exports VALUES (:id, :dir, :record, :createdAt)', {
      id: made.id,
      dir: made.dir,
      record: JSON.stringify(made),
      createdAt: made.createdAt,
    });
    emit('exportsChanged', {});
  }

  return {
    handlers: {
      async exportRun(params) {
        const { run: ref, layout } = params;
        if (!isAbsolute(params.outDir))
          throw new CaravanError(
            'bad_option',
            `give the folder as an absolute path, not '${params.outDir}'`,
            {
              place: { field: 'outDir' },
            },
          );
        const resolved = await models.resolve(ref);
        const { trained } = resolved;
        checkAsked(params, resolved);
        const exported = await exportedOf(resolved, models);
        const outDir = resolve(params.outDir);
        return jobs.submit({
          kind: 'export',
          title: `export ${exported.name} as ${layout}`,
          lane: 'exports',
          needs: [`model ${resolved.dir}`],
          async run({ signal, progress, setSubject, log }) {
            const identity = await models.identityOf(
              resolved.dir,
              (done, total) => progress({ done, total, unit: 'bytes', stage: 'hashing the base' }),
              signal,
            );
            if (trained && trained.baseIdentity !== null && identity !== trained.baseIdentity)
              throw new CaravanError(
                'model_mismatch',
                'the base model is not the one that this run was trained on',
                {
                  place: { file: resolved.dir },
                  mend: 'Bring back the files that the run began with.',
                },
              );
            const record = await engines.inference.export(
              {
                model: {
                  ...exported.model,
                  modelDir: resolved.dir,
                  baseName: resolved.dir,
                  baseIdentity: identity,
                },
                layout,
                type: params.type ?? usualType(layout),
                mergeInto: params.mergeInto,
                outDir,
                shardBytes: params.shardBytes,
                name: exported.name,
                template: exported.template,
                tokens: resolved.tokens,
                tokenizerPath: resolved.tokenizerPath,
                stopIds: resolved.stopIds,
                run: exported.run,
              },
              (stage, done, total) => progress({ done, total: total || null, unit: unitOf(stage), stage }),
              signal,
            );
            for (const note of record.notes) log(note);
            for (const problem of record.parity.tensors.wrong) log(problem);
            const made: Export = { ...record, id: randomUUID(), dir: outDir, createdAt: clock.now() };
            keep(made);
            setSubject(made.id);
          },
        });
      },
      async offerExports({ run: ref, type, mergeInto, outDir }) {
        const resolved = await models.resolve(ref);
        const exported = await exportedOf(resolved, models);
        const asked = exportLayouts.map((layout) => {
          const { types } = exportFormats[layout];
          return { layout, type: type !== undefined && types.includes(type) ? type : usualType(layout) };
        });
        const offers = await engines.inference.offerExports({
          model: { ...exported.model, modelDir: resolved.dir, baseName: resolved.dir, baseIdentity: '' },
          mergeInto,
          asked,
        });
        return {
          run: exported.run,
          base: {
            name: resolved.model?.name ?? basename(resolved.dir),
            dtype: exported.model.baseDtype,
          },
          formats: asked.map(({ layout, type: own }, index) => {
            const offer = offers[index]!;
            const refusal = refusalOf({ layout, mergeInto: 'trained' }, resolved);
            return {
              layout,
              type: isAdapterLayout(layout) ? null : own,
              ...offer,
              // Of a model as it came it is the one word that is true: it holds nothing that was trained.
              refusal: resolved.trained ? (offer.refusal ?? refusal) : (refusal ?? offer.refusal),
            };
          }),
          place: outDir === undefined ? null : await describePlace(outDir),
        };
      },
      listExports: () =>
        store
          .all<{
            record: string;
          }>(
            "SELECT json_remove(record, '$.parity.tensors.each') AS record FROM exports ORDER BY created_at DESC, id",
          )
          .map(parse),
      getExport({ id }) {
        const row = store.get<{ record: string }>('SELECT record FROM exports WHERE id = ?', [id]);
        if (!row) throw new CaravanError('not_found', `there is no export ${id}`);
        return parse(row);
      },
      async readExport({ dir }) {
        const file = join(dir, 'export.json');
        const text = await readFile(file, 'utf8').catch(() => null);
        if (text === null)
          throw new CaravanError('not_found', 'this folder holds no export.json', {
            place: { file: dir },
            mend: 'Give the folder that an export was written to.',
          });
        const parsed = exportRecordSchema.safeParse(safeJson(text));
        if (!parsed.success)
          throw new CaravanError('bad_file', 'is not what an export of this version writes', {
            place: { file },
          });
        return parsed.data;
      },
    },
    close: () => Promise.resolve(),
  };
}

function refusalOf(
  asked: Parameters<typeof checkAsked>[0],
  resolved: ResolvedModel,
): ContractErrorData | null {
  try {
    checkAsked(asked, resolved);
    return null;
  } catch (error) {
    return CaravanError.from(error).toData();
  }
}

/** The disk that a folder would lie on, and what stands in its way there. */
async function describePlace(
  outDir: string,
): Promise<{ freeBytes: number; problem: ContractErrorData | null }> {
  const problemOf = (message: string, mend: string) =>
    new CaravanError('bad_option', message, { place: { file: outDir }, mend }).toData();
  if (!isAbsolute(outDir))
    return {
      freeBytes: 0,
      problem: problemOf('this is no absolute path', 'Give the folder from the root on.'),
    };
  let above = resolve(outDir);
  while (!existsSync(above) && dirname(above) !== above) above = dirname(above);
  const { bavail, bsize } = await statfs(above);
  const found = await stat(above);
  const writable = await access(above, constants.W_OK).then(
    () => true,
    () => false,
  );
  const taken = above === resolve(outDir) && !(found.isDirectory() && (await readdir(above)).length === 0);
  return {
    freeBytes: bavail * bsize,
    problem: taken
      ? problemOf('there is something at this place already', 'Give a folder that is not there yet.')
      : !writable
        ? problemOf(`${above} cannot be written`, 'Choose a folder that you may write to.')
        : null,
  };
}

function usualType(layout: ExportLayout): ExportType {
  return exportFormats[layout].types[0] ?? 'bf16';
}

/** What can be told before a job begins. */
function checkAsked(
  { layout, type, mergeInto }: Pick<CallParams<'exportRun'>, 'layout' | 'type' | 'mergeInto'>,
  { dir, name, trained }: ResolvedModel,
): void {
  if (!trained && layout !== 'onnx')
    throw new CaravanError('bad_option', `'${name}' is a model as it came, not a run`, {
      place: { field: 'run' },
      mend: 'Name a run (caravan runs lists them); onnx alone also carries models as they came.',
    });
  if (isAdapterLayout(layout)) {
    if (type !== undefined)
      throw new CaravanError('bad_option', `${layout} keeps the type that was trained in`, {
        place: { field: 'type' },
        mend: 'Leave the type out.',
      });
    if (mergeInto === 'original')
      throw new CaravanError('bad_option', `${layout} merges nothing`, { place: { field: 'mergeInto' } });
    return;
  }
  const base = trained?.modelDir ?? dir;
  if (layout !== 'gguf' && isGgufPath(base))
    throw new CaravanError(
      'bad_option',
      `the base is a GGUF file, which has no tokenizer.json for the layout ${layout}`,
      {
        place: { file: base },
        mend: 'Use gguf, adapter or peft; or begin from the Hugging Face folder of the same model.',
      },
    );
}

function unitOf(stage: string): string {
  return stage === 'writing' || stage === 'loading the base'
    ? 'bytes'
    : stage === 'comparing tensors'
      ? 'tensors'
      : 'prompts';
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
