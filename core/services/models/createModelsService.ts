import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, isAbsolute, join, relative, resolve as resolvePath } from 'node:path';
import * as z from 'zod';
import { wallClock } from '../../shared/clock.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { TemplateTokens } from '../../shared/dataset/template.ts';
import type { Model, ModelCheck } from '../../shared/model/model.ts';
import { isHubReference, parseHubReference, type HubOrigin } from '../../shared/hub/hubReference.ts';
import { isGgufPath } from '../../shared/model/modelPath.ts';
import { checkName, freeName } from '../../shared/names.ts';
import { createPauseGate } from '../hub/index.ts';
import type { JobContext } from '../jobs/index.ts';
import { fingerprintFiles, weightFiles } from './fingerprint.ts';
import {
  copyModel,
  freeBytes,
  kindOf,
  modelFiles,
  modelPlace,
  removePartial,
  sumBytes,
} from './modelFiles.ts';
import { createModelTable } from './modelTable.ts';
import type { Models, ModelsDeps, ModelsService, ResolvedModel, TrainedModel } from './modelTypes.ts';

interface TokenizerFacts {
  fingerprint: string;
  tokens: TemplateTokens;
  stopIds: number[];
}

interface NewModel {
  dir: string;
  /** As asked for; where it is not, the model keeps its name or gets its usual one. */
  name: string | undefined;
  usual: string;
  copy: boolean;
  origin: HubOrigin | null;
}

const giveModel =
  'Give a folder with config.json, weights (*.safetensors or pytorch_model.bin) and tokenizer.json, the folder of an ONNX export, or a GGUF file.';

/** The model library: names for folders and GGUF files, and everything that a reference to a model can mean. */
export function createModelsService(deps: ModelsDeps): ModelsService {
  const { store, home, emit, jobs, data, hub, trainedModel, clock = wallClock } = deps;
  const copiesDir = join(home, 'models');
  const cleaned = removePartial(copiesDir);
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

  /** What must hold before anything is trained with it; nothing where there is no tokenizer. */
  async function check(dir: string): Promise<ModelCheck[]> {
    // A tokenizer that cannot be read was refused before, by `inspect`.
    const known = await readTokenizer(dir).catch(() => null);
    if (known === null) return [];
    const { tokens, stopIds } = known;
    return data.request('checkTokenizer', {
      path: tokenizerPathOf(dir),
      tokens: plain(tokens),
      stopIds,
      template: tokens.chatTemplate === null ? 'camelidae' : 'model',
    });
  }

  function modelOf(id: string): Model {
    const model = table.find(id);
    if (!model) throw new CaravanError('not_found', `there is no model ${id} in the library`);
    return model;
  }

  function isCopy({ dir }: Model): boolean {
    return isInside(copiesDir, dir);
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
    const tokenizerPath = tokenizerPathOf(dir);
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

  /** @param dir null where it is not known yet */
  function checkFree(name: string | undefined, dir: string | null): void {
    if (name === undefined) return;
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

  async function add(
    { dir, name, usual, copy, origin }: NewModel,
    { signal, progress, setSubject, log }: JobContext,
  ): Promise<void> {
    await cleaned;
    await checkKind(dir);
    const known = table.findByDir(dir);
    const thrown = known ? null : table.findInTrash(dir);
    // A model that is refused is not copied first.
    const seen = await inspect(dir);
    const id = copy ? randomUUID() : (known?.id ?? thrown?.id ?? randomUUID());
    const place = copy
      ? await copyModel(
          dir,
          join(copiesDir, id),
          (done, total) => progress({ done, total, unit: 'bytes', stage: 'copying' }),
          signal,
        )
      : dir;
    try {
      const identity = await models.identityOf(
        place,
        (done, total) => progress({ done, total, unit: 'bytes', stage: 'hashing tensors' }),
        signal,
      );
      const checks = await check(place);
      for (const { name: what, passed, found } of checks) if (passed === false) log(`${what}: ${found}`);
      if (signal.aborted) throw new CaravanError('cancelled', 'adding the model was cancelled');
      const wanted = name ?? known?.name ?? thrown?.name ?? usual;
      const from = origin ?? known?.hub ?? thrown?.hub;
      table.save({
        ...seen,
        dir: place,
        identity,
        id,
        name: freeName(wanted, (n) => (table.find(n)?.id ?? id) !== id),
        addedAt: known?.addedAt ?? thrown?.addedAt ?? clock.now(),
        ...(copy && { copiedFrom: dir }),
        ...(!copy && known?.copiedFrom !== undefined && { copiedFrom: known.copiedFrom }),
        ...(from && { hub: from }),
        ...(checks.length > 0 && { checks }),
      });
    } catch (error) {
      if (copy) await rm(join(copiesDir, id), { recursive: true, force: true });
      throw error;
    }
    setSubject(id);
    emit('modelsChanged', {});
  }

  return {
    models,
    handlers: {
      async addModel({ path, name, copy, access }) {
        if (isHubReference(path)) {
          // What is downloaded lies in the home already: there is nothing to copy.
          const { id, files } = parseHubReference(path);
          checkFree(name, null);
          const gate = createPauseGate();
          return jobs.submit({
            kind: 'model',
            title: `add model ${name ?? id} from the hub`,
            lane: 'hub',
            pausing: gate,
            async run(context) {
              const { plan } = await hub.fetch({ kind: 'model', reference: path, access }, context, gate);
              context.endPausing();
              const [only] = plan.files;
              const dir = isGgufPath(only!.path) ? join(plan.dir, only!.path) : plan.dir;
              context.need(`model ${dir}`);
              await context.enterLane('models');
              checkFree(name, dir);
              const usual = files === null ? id.split('/').at(-1)! : nameOf(dir);
              await add({ dir, name, usual, copy: false, origin: plan.origin }, context);
            },
          });
        }
        const dir = await placeOf(path);
        const known = table.findByDir(dir);
        if (copy) {
          const there = known && isCopy(known) ? known : table.findCopyOf(dir);
          if (there)
            throw new CaravanError('wrong_state', `'${there.name}' in the library is a copy of it already`, {
              place: { file: there.dir },
              mend: 'Remove that one first to copy it again.',
            });
        }
        checkFree(name, copy ? null : dir);
        return jobs.submit({
          kind: 'model',
          title: `${copy ? 'copy' : 'add'} model ${name ?? nameOf(dir)}`,
          lane: 'models',
          needs: [`model ${dir}`],
          run: (context) => add({ dir, name, usual: nameOf(dir), copy, origin: null }, context),
        });
      },
      async previewModel({ path }) {
        const dir = await placeOf(path);
        const kind = await kindOf(dir);
        const found =
          kind === null
            ? null
            : isGgufPath(dir)
              ? ('gguf' as const)
              : kind === 'folder'
                ? ('folder' as const)
                : null;
        const files = found === null ? [] : await modelFiles(dir);
        const known = table.findByDir(dir) ?? table.findCopyOf(dir);
        const looked = await checkKind(dir)
          .then(() => inspect(dir))
          .then(
            (model) => ({ model, problem: null }),
            (error: unknown) => ({ model: null, problem: CaravanError.from(error).toData() }),
          );
        return {
          ...looked,
          found,
          name: nameOf(dir),
          files,
          copyBytes: sumBytes(files),
          freeBytes: await freeBytes(existsSync(copiesDir) ? copiesDir : home),
          known: known && { id: known.id, name: known.name },
        };
      },
      listModels: () => table.list(),
      listModelTrash: () => table.listTrash(),
      getModel: ({ id }) => modelOf(id),
      async inspectModel({ model: ref }) {
        const { dir, name, model } = await models.resolve(ref);
        const { checks, copiedFrom, hub: origin } = model ?? {};
        return {
          ...(await inspect(dir)),
          name: model?.name ?? name,
          ...(checks && { checks }),
          ...(copiedFrom !== undefined && { copiedFrom }),
          ...(origin && { hub: origin }),
        };
      },
      trashModel({ id }) {
        const model = modelOf(id);
        jobs.checkUnneeded(`model ${model.dir}`, `model '${model.name}'`);
        table.trash(model.id, clock.now());
        emit('modelsChanged', {});
        return {};
      },
      restoreModel({ id }) {
        const name = table.restore(modelOf(id).id);
        emit('modelsChanged', {});
        return { name };
      },
      async removeModel({ id }) {
        const model = modelOf(id);
        jobs.checkUnneeded(`model ${model.dir}`, `model '${model.name}'`);
        table.remove(model.id);
        emit('modelsChanged', {});
        if (isCopy(model)) await rm(join(copiesDir, model.id), { recursive: true, force: true });
        const isShared = [...table.list(), ...table.listTrash()].some(({ dir }) => isInside(model.dir, dir));
        if (model.hub && !isShared) await hub.forget(model.dir);
        return {};
      },
      async tokenize({ model, texts }) {
        const { tokenizerPath } = await models.resolve(model);
        return data.request('tokenize', { tokenizerPath, texts, threads: availableParallelism() });
      },
      async describeTokenizer({ model }) {
        const { tokenizerPath, tokens, stopIds } = await models.resolve(model);
        return data.request('describeTokenizer', { path: tokenizerPath, tokens: plain(tokens), stopIds });
      },
      async spellText({ model, text }) {
        const { tokenizerPath } = await models.resolve(model);
        return data.request('spellText', { path: tokenizerPath, text });
      },
      async renderConversation({ model, messages, template: asked }) {
        const { tokenizerPath, tokens, trained } = await models.resolve(model);
        const template =
          asked !== 'auto'
            ? asked
            : (trained?.template ?? (tokens.chatTemplate === null ? 'camelidae' : 'model'));
        const spelled = await data.request('renderConversation', {
          path: tokenizerPath,
          messages,
          template,
          tokens: plain(tokens),
        });
        return { template, tokens: spelled, count: spelled.reduce((sum, { ids }) => sum + ids.length, 0) };
      },
    },
    close: () => cleaned,
  };
}

/** @throws `bad_option` where it is no absolute path */
async function placeOf(path: string): Promise<string> {
  if (!isAbsolute(path))
    throw new CaravanError('bad_option', `give the model's path as an absolute one, not '${path}'`, {
      place: { field: 'path' },
    });
  return modelPlace(resolvePath(path));
}

async function checkKind(dir: string): Promise<void> {
  const kind = await kindOf(dir);
  if (kind === (isGgufPath(dir) ? 'file' : 'folder')) return;
  throw new CaravanError(
    kind === null ? 'not_found' : 'bad_file',
    kind === null ? 'there is no such folder or file' : `this ${kind} is no model`,
    { place: { file: dir }, mend: giveModel },
  );
}

function tokenizerPathOf(dir: string): string {
  return isGgufPath(dir) ? dir : join(dir, 'tokenizer.json');
}

function plain(tokens: TemplateTokens) {
  return { ...tokens, specials: [...tokens.specials] };
}

function isInside(folder: string, path: string): boolean {
  const way = relative(folder, path);
  return way !== '' && !way.startsWith('..') && !isAbsolute(way);
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
