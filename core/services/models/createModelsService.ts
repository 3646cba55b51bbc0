import { randomUUID } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, isAbsolute, join, resolve as resolvePath } from 'node:path';
import * as z from 'zod';
import { wallClock } from '../../shared/clock.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { TemplateTokens } from '../../shared/dataset/template.ts';
import type { Model } from '../../shared/model/model.ts';
import { isGgufPath } from '../../shared/model/modelPath.ts';
import { checkName, freeName } from '../../shared/names.ts';
import { fingerprintFiles, weightFiles } from './fingerprint.ts';
import { createModelTable } from './modelTable.ts';
import type { Models, ModelsDeps, ModelsService, ResolvedModel, TrainedModel } from './modelTypes.ts';

interface TokenizerFacts {
  fingerprint: string;
  tokens: TemplateTokens;
  stopIds: number[];
}

const giveModel = 'Give a folder with config.json, *.safetensors and tokenizer.json, or a GGUF file.';

/** The model library: names for folders and GGUF files, and everything that a reference to a model can mean. */
export function createModelsService(deps: ModelsDeps): ModelsService {
  const { store, emit, jobs, data, trainedModel, clock = wallClock } = deps;
  const table = createModelTable(store);
  const tokenizers = new Map<string, TokenizerFacts>();

  async function readTokenizer(dir: string): Promise<TokenizerFacts> {
    const files = isGgufPath(dir)
      ? [dir]
      : ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json', 'config.json'].map((name) =>
          join(dir, name),
        );
    const there = (
      await Promise.all(files.map(async (file) => ((await kindOf(file)) === 'file' ? file : null)))
    ).filter((file) => file !== null);
    const fingerprint = await fingerprintFiles(there);
    const known = tokenizers.get(dir);
    if (known?.fingerprint === fingerprint) return known;
    const read = { fingerprint, ...(await data.request('readTokenizer', { dir })) };
    tokenizers.set(dir, read);
    return read;
  }

  async function inspect(dir: string): Promise<Omit<Model, 'id' | 'addedAt'>> {
    const { parameters, ...summary } = await data.request('inspectModel', { dir });
    const tokenizer = await readTokenizer(dir).catch((error: unknown) => {
      if (CaravanError.from(error).code === 'not_found') return null;
      throw error;
    });
    return {
      ...summary,
      parameters,
      name: nameOf(dir),
      dir,
      hasChatTemplate: tokenizer?.tokens.chatTemplate != null,
      bosToken: tokenizer?.tokens.bos ?? null,
      eosToken: tokenizer?.tokens.eos ?? null,
      identity: table.hash(dir, await fingerprintFiles(await weightFiles(dir))),
    };
  }

  const models: Models = {
    async resolve(ref) {
      const model = table.find(ref);
      if (model) return fromPath(model.dir, model.name, model);
      if (ref.startsWith('run:')) {
        const trained = await trainedModel(ref.slice('run:'.length));
        if (trained) return fromRun(trained);
        throw new CaravanError('not_found', `there is no run '${ref.slice('run:'.length)}'`, {
          mend: 'List them: caravan runs.',
        });
      }
      const kind = await kindOf(ref);
      if (!isAbsolute(ref) || kind === null) {
        const trained = await trainedModel(ref);
        if (trained) return fromRun(trained);
      }
      if (kind === null)
        throw new CaravanError(
          'not_found',
          isAbsolute(ref)
            ? `there is no model in ${ref}`
            : `'${ref}' is no model in the library, no run, no folder and no GGUF file`,
          { mend: 'List models with caravan model list and runs with caravan runs, or give a path.' },
        );
      const path = resolvePath(ref);
      if (kind === 'file') {
        if (isGgufPath(path)) return fromPath(path, nameOf(path), table.findByDir(path));
        if (basename(path) === 'tokenizer.json')
          return fromPath(dirname(path), basename(dirname(path)), null);
        throw new CaravanError('bad_file', 'this file is no model', {
          place: { file: path },
          mend: giveModel,
        });
      }
      if ((await kindOf(join(path, 'config.json'))) === null) {
        const trained = await trainedModel(path);
        if (trained) return fromRun(trained);
        const base = await readAdapterBase(path);
        if (base !== null) return fromAdapter(path, base);
      }
      return fromPath(path, basename(path), table.findByDir(path));
    },
    async identityOf(dir, onProgress, signal) {
      const fingerprint = await fingerprintFiles(await weightFiles(dir));
      const known = table.hash(dir, fingerprint);
      if (known !== null) return known;
      const { identity } = await data.request(
        'hashModel',
        { dir },
        { onProgress: ({ done, total }) => onProgress?.(done, total), ...(signal && { signal }) },
      );
      table.keepHash(dir, fingerprint, identity);
      return identity;
    },
    async tokenizerHash(tokenizerPath) {
      const fingerprint = await fingerprintFiles([tokenizerPath]);
      const known = table.hash(tokenizerPath, fingerprint);
      if (known !== null) return known;
      const { hash } = await data.request('hashFile', { path: tokenizerPath });
      table.keepHash(tokenizerPath, fingerprint, hash);
      return hash;
    },
    inspect,
  };

  async function fromPath(dir: string, name: string, model: Model | null): Promise<ResolvedModel> {
    if ((await kindOf(dir)) === null)
      throw new CaravanError(
        'not_found',
        `the ${isGgufPath(dir) ? 'file' : 'folder'} of model '${name}' is gone`,
        {
          place: { file: dir },
          mend: 'Bring it back, or remove the model from the library and add it where it is now.',
        },
      );
    const { tokens, stopIds } = await readTokenizer(dir);
    const tokenizerPath = isGgufPath(dir) ? dir : join(dir, 'tokenizer.json');
    return { name, model, dir, tokenizerPath, tokens, stopIds, trained: null };
  }

  async function fromAdapter(adapterDir: string, base: string): Promise<ResolvedModel> {
    const resolved = await models.resolve(base).catch((error: unknown) => {
      throw new CaravanError('not_found', `the adapter's base model '${base}' is not here`, {
        place: { file: adapterDir },
        mend: 'Add that model to the library under this name, or write its folder into the adapter’s configuration.',
        cause: error,
      });
    });
    if (resolved.trained || resolved.adapterDir !== undefined)
      throw new CaravanError('bad_file', `the adapter's base '${base}' is no plain model`, {
        place: { file: adapterDir },
      });
    // An adapter that brings a tokenizer brings the template that it was trained with.
    const own = (await kindOf(join(adapterDir, 'tokenizer.json'))) === 'file';
    const { tokens, stopIds } = own ? await readTokenizer(adapterDir) : resolved;
    return { ...resolved, name: basename(adapterDir), tokens, stopIds, adapterDir };
  }

  async function fromRun(trained: TrainedModel): Promise<ResolvedModel> {
    const base = await fromPath(trained.modelDir, trained.runName, table.findByDir(trained.modelDir));
    return { ...base, trained };
  }

  return {
    models,
    handlers: {
      addModel({ path, name }) {
        if (!isAbsolute(path))
          throw new CaravanError('bad_option', `give the model's path as an absolute one, not '${path}'`, {
            place: { field: 'path' },
          });
        const dir = resolvePath(path);
        const known = table.findByDir(dir);
        if (name !== undefined) {
          checkName(name);
          const holder = table.find(name);
          if (holder && holder.dir !== dir)
            throw new CaravanError(
              'name_taken',
              `a model named '${name}' is in the library already: ${holder.dir}`,
              {
                place: { field: 'name' },
                mend: 'Choose another name with --name, or remove that one.',
              },
            );
        }
        return jobs.submit({
          kind: 'model',
          title: `add model ${name ?? nameOf(dir)}`,
          lane: 'models',
          needs: [`model ${dir}`],
          async run({ signal, progress, setSubject }) {
            const kind = await kindOf(dir);
            if (kind !== (isGgufPath(dir) ? 'file' : 'folder'))
              throw new CaravanError(
                kind === null ? 'not_found' : 'bad_file',
                kind === null ? 'there is no such folder or file' : `this ${kind} is no model`,
                { place: { file: dir }, mend: giveModel },
              );
            const summary = await inspect(dir);
            const identity = await models.identityOf(
              dir,
              (done, total) => progress({ done, total, unit: 'bytes', stage: 'hashing tensors' }),
              signal,
            );
            if (signal.aborted) throw new CaravanError('cancelled', 'adding the model was cancelled');
            const wanted = name ?? known?.name ?? nameOf(dir);
            const model: Model = {
              ...summary,
              identity,
              id: known?.id ?? randomUUID(),
              name: freeName(wanted, (n) => (table.find(n)?.dir ?? dir) !== dir),
              addedAt: known?.addedAt ?? clock.now(),
            };
            table.save(model);
            setSubject(model.id);
            emit('modelsChanged', {});
          },
        });
      },
      listModels: () => table.list(),
      getModel({ id }) {
        const model = table.find(id);
        if (!model) throw new CaravanError('not_found', `there is no model ${id} in the library`);
        return model;
      },
      async inspectModel({ model: ref }) {
        const { dir, name, model } = await models.resolve(ref);
        return { ...(await inspect(dir)), name: model?.name ?? name };
      },
      removeModel({ id }) {
        const model = table.find(id);
        if (!model) throw new CaravanError('not_found', `there is no model ${id} in the library`);
        jobs.checkUnneeded(`model ${model.dir}`, `model '${model.name}'`);
        table.remove(model.id);
        emit('modelsChanged', {});
        return {};
      },
      async tokenize({ model, texts }) {
        const { tokenizerPath } = await models.resolve(model);
        return data.request('tokenize', { tokenizerPath, texts, threads: availableParallelism() });
      },
    },
    close: () => Promise.resolve(),
  };
}

const adapterConfigs = ['caravan_adapter.json', 'adapter_config.json'];
const adapterBaseSchema = z.union([
  z.object({ base_model: z.string() }).transform(({ base_model: base }) => base),
  z.object({ base_model_name_or_path: z.string() }).transform(({ base_model_name_or_path: base }) => base),
]);

/** @returns what an adapter's folder says of its base; null where the folder is none */
async function readAdapterBase(dir: string): Promise<string | null> {
  for (const name of adapterConfigs) {
    const file = join(dir, name);
    if ((await kindOf(file)) !== 'file') continue;
    const text = await readFile(file, 'utf8');
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw new CaravanError('bad_file', `not valid JSON: ${(error as Error).message}`, { place: { file } });
    }
    const base = adapterBaseSchema.safeParse(value);
    if (base.success) return base.data;
    throw new CaravanError('bad_file', 'does not name its base model', {
      place: { file, field: name === adapterConfigs[0] ? 'base_model' : 'base_model_name_or_path' },
      mend: 'Write the folder of the base model there.',
    });
  }
  return null;
}

/** What a model is called by its path. */
function nameOf(path: string): string {
  return isGgufPath(path) ? basename(path).slice(0, -'.gguf'.length) : basename(path);
}

async function kindOf(path: string): Promise<'file' | 'folder' | null> {
  try {
    return (await stat(path)).isDirectory() ? 'folder' : 'file';
  } catch {
    return null;
  }
}
