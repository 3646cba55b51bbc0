import { stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { encodeConversations, type EncodedConversation } from '../prompt/encodeConversations.ts';
import { renderJinja } from '../prompt/renderJinja.ts';
import { spellTokens } from '../prompt/spellTokens.ts';
import type { Answer, SpelledToken } from '../shared/chat/chat.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import type { Message } from '../shared/dataset/source.ts';
import { renderTemplate, type TemplatePiece } from '../shared/dataset/template.ts';
import { isOnnxFolder } from '../onnx/format/isOnnxFolder.ts';
import { openOnnxModel, type ChatModel } from '../onnx/session/openOnnxModel.ts';
import { findProviders, loadRuntime } from '../onnx/session/runtime.ts';
import type { Device } from '../shared/run/device.ts';
import { graphFile, type OnnxProvider } from '../shared/model/onnxModel.ts';
import type { Addon, AddonTokenizer, OpenModelOptions } from './AddonTypes.ts';
import { exportModel } from './exportModel.ts';
import { keepOpen } from './keepOpen.ts';
import { offerExports } from './offerExports.ts';
import type { RequestName, RequestParams, RequestResult } from './protocol.ts';
import { encodeTexts, scoreRows } from './scoreRows.ts';

/** New text of an answer, and how many tokens it has so far. */
export type TellText = (text: string, tokens: number) => void;

/** What a request tells on its way. */
export interface Tell {
  text: TellText;
  progress: (stage: string, done: number, total: number) => void;
}

export interface ServedInference {
  answer<N extends RequestName>(name: N, params: RequestParams<N>, tell: Tell): Promise<RequestResult<N>>;
  /** An answer or an export, by its id. */
  cancel(answerId: string): void;
}

/** As many as a window puts side by side. */
const modelsKept = 4;
const tokenizersKept = 4;
/** Texts wait for one another so long: what comes within one frame of a window is one message. */
const textBatchMs = 16;

type Handlers = {
  [N in RequestName]: (params: RequestParams<N>, tell: Tell) => Promise<RequestResult<N>>;
};

/**
 * A plain model that is not stored in f32 computes in bf16 on a GPU, whose matrix units are made for it; a run's model
 * computes as it was trained.
 */
function placed(options: OpenModelOptions, device: Device): OpenModelOptions {
  const plain = options.checkpointDir === undefined && options.baseDtype !== 'f32';
  return { ...options, device, ...(device !== 'cpu' && plain && { computeDtype: 'bf16' }) };
}

export function serveInference(addon: Addon): ServedInference {
  const models = keepOpen<ChatModel>(modelsKept);
  const tokenizers = keepOpen<AddonTokenizer>(tokenizersKept);
  /** Exports under way, by their ids. */
  const exports = new Map<string, AbortController>();
  /** Answers under way, by their ids; the model is known once it is open. */
  const answers = new Map<string, { cancelled: boolean; model: ChatModel | null }>();

  /** The GPU where there is one. Asked once: none comes or goes while an engine lives, and the driver takes a while. */
  let usualDevice: Promise<Device> | undefined;

  function findUsualDevice(): Promise<Device> {
    usualDevice ??= addon
      .devices()
      .then((found) => found.find(({ kind }) => kind === 'cuda')?.device ?? 'cpu');
    return usualDevice;
  }

  /** Tried once likewise, and only where somebody asks: a GPU's driver may take a second. */
  let providers: Promise<OnnxProvider[]> | undefined;

  function onnxProviders(): Promise<OnnxProvider[]> {
    providers ??= loadRuntime().then((runtime) => findProviders(runtime));
    return providers;
  }

  async function openOnnx(dir: string): Promise<ChatModel> {
    const runtime = await loadRuntime();
    return openOnnxModel(dir, { runtime, providers: await onnxProviders(), addon });
  }

  async function withModel<R>(asked: OpenModelOptions, use: (model: ChatModel) => Promise<R>): Promise<R> {
    const { modelDir } = asked;
    if (await isOnnxFolder(modelDir))
      return models.with(`onnx ${await changeOf(join(modelDir, graphFile))}`, () => openOnnx(modelDir), use);
    const options = placed(asked, asked.device ?? (await findUsualDevice()));
    const key = JSON.stringify(Object.entries(options).sort(([a], [b]) => (a < b ? -1 : 1)));
    return models.with(key, () => addon.openModel(options), use);
  }

  async function withTokenizer<R>(path: string, use: (tokenizer: AddonTokenizer) => Promise<R>): Promise<R> {
    return tokenizers.with(await changeOf(path), () => addon.openTokenizer(path), use);
  }

  async function encode(
    tokenizer: AddonTokenizer,
    { template, messages, tokens }: RequestParams<'renderPrompt'>,
  ): Promise<EncodedConversation> {
    const pieces = renderTemplate(template, messages, tokens, renderJinja);
    const [encoded] = await encodeConversations(tokenizer, [openAnswer(pieces, messages)], 1);
    return encoded!;
  }

  async function routeTokens({
    model,
    of,
  }: RequestParams<'routeTokens'>): Promise<RequestResult<'routeTokens'>> {
    return withTokenizer(of.tokenizerPath, (tokenizer) =>
      withModel(model, async (opened) => {
        const encoded =
          'text' in of
            ? unasked((await encodeTexts(tokenizer, [of.text], 1))[0]!)
            : await encode(tokenizer, of);
        const routes = await opened.routeTokens(encoded.ids);
        const { layers, experts, topK } = routes;
        const size = layers * topK;
        const runs = spell(tokenizer, encoded);
        // Of tokens that make one character together, the last one's experts: it is the one that completes it.
        const ends: number[] = [];
        let end = 0;
        for (const { ids } of runs) ends.push((end += ids.length));
        const ofRuns = (values: Int32Array | Float32Array) =>
          ends.flatMap((to) => Array.from(values.subarray((to - 1) * size, to * size)));
        return {
          layers,
          experts,
          topK,
          tokens: runs,
          chosen: ofRuns(routes.chosen),
          weights: ofRuns(routes.weights),
        };
      }),
    );
  }

  async function generate(params: RequestParams<'generate'>, tell: TellText): Promise<Answer> {
    const { answerId, tokens, sampling } = params;
    if (answers.has(answerId))
      throw new CaravanError('bad_option', `answerId "${answerId}" is that of an answer under way`);
    const answer = { cancelled: false, model: null as ChatModel | null };
    answers.set(answerId, answer);
    const texts = batchTexts(tell);
    try {
      return await withTokenizer(params.tokenizerPath, (tokenizer) =>
        withModel(params.model, async (model): Promise<Answer> => {
          const started = performance.now();
          const prompt =
            params.text === undefined
              ? await encode(tokenizer, params)
              : unasked((await encodeTexts(tokenizer, [params.text], 1))[0]!);
          const eos = tokens.eos === null ? null : tokenizer.tokenToId(tokens.eos);
          if (answer.cancelled) return cancelledAnswer(prompt.ids.length);
          answer.model = model;
          const first: { ms?: number } = {};
          const { maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stop } = sampling;
          const result = await model.generate(
            {
              generationId: answerId,
              promptIds: prompt.ids,
              maxTokens,
              temperature,
              ...(topK !== undefined && { topK }),
              ...(topP !== undefined && { topP }),
              ...(minP !== undefined && { minP }),
              ...(repetitionPenalty !== undefined && { repetitionPenalty }),
              seed,
              stopIds: [...new Set([...params.stopIds, ...(eos === null ? [] : [eos])])],
              stopStrings: stop,
              tokenizer,
            },
            ({ text }) => {
              first.ms ??= performance.now() - started;
              texts.add(text);
            },
          );
          return {
            text: result.text,
            ids: Array.from(result.ids),
            stopReason: result.stopReason,
            promptTokens: result.promptTokens,
            timeToFirstTokenMs: first.ms ?? performance.now() - started,
            tokensPerSecond: result.tokensPerSecond,
          };
        }),
      );
    } finally {
      texts.flush();
      answers.delete(answerId);
    }
  }

  const handlers: Handlers = {
    generate: (params, tell) => generate(params, tell.text),
    async export(params, tell) {
      const cancelled = new AbortController();
      exports.set(params.exportId, cancelled);
      try {
        return await withTokenizer(params.tokenizerPath, (tokenizer) =>
          exportModel(addon, tokenizer, params, tell.progress, cancelled.signal),
        );
      } finally {
        exports.delete(params.exportId);
      }
    },
    offerExports: (params) => offerExports(addon, params),
    score: ({ model, tokenizerPath, rows }) =>
      withTokenizer(tokenizerPath, (tokenizer) =>
        withModel(model, (opened) => scoreRows(opened, tokenizer, rows)),
      ),
    route: ({ model, tokenizerPath, rows, groups }) =>
      withTokenizer(tokenizerPath, (tokenizer) =>
        withModel(model, async (opened) => {
          const ids = await encodeTexts(
            tokenizer,
            rows.map(({ text }) => text),
            availableParallelism(),
          );
          return opened.route(
            ids,
            rows.map(({ group }) => group),
            groups,
          );
        }),
      ),
    renderPrompt: (params) =>
      withTokenizer(params.tokenizerPath, async (tokenizer) =>
        spell(tokenizer, await encode(tokenizer, params)),
      ),
    routeTokens,
    plan: ({ options }) => addon.planTraining(options),
    async probe({ options }) {
      // It measures what training will have: the memory of models that nobody talks to.
      await models.closeIdle();
      return addon.probeTraining(options);
    },
    listCheckpoints: ({ checkpointDir }) => addon.listCheckpoints(checkpointDir),
    devices: () => addon.devices(),
    onnxProviders,
    cudaStatus: () => addon.cudaStatus(),
    buildInfo: () => Promise.resolve(addon.buildInfo()),
  };

  return {
    answer: (name, params, tell) => handlers[name](params, tell),
    cancel(answerId) {
      exports.get(answerId)?.abort();
      const answer = answers.get(answerId);
      if (!answer) return;
      answer.cancelled = true;
      answer.model?.cancel(answerId);
    },
  };
}

/** A file that is written anew is another one. */
async function changeOf(path: string): Promise<string> {
  const changed = await stat(path).then(
    ({ mtimeMs, size }) => `${mtimeMs} ${size}`,
    () => 'absent',
  );
  return `${path}\n${changed}`;
}

/** An answer that is to go on ends where its text ends, without what the template puts behind answers. */
function openAnswer(pieces: TemplatePiece[], messages: readonly Message[]): TemplatePiece[] {
  if (messages.at(-1)?.role !== 'assistant') return pieces;
  const last = pieces.findLastIndex(({ kind, target }) => kind === 'text' && target);
  return pieces.slice(0, last + 1);
}

function unasked(ids: Int32Array): EncodedConversation {
  return { ids, targets: new Uint8Array(ids.length) };
}

function spell(tokenizer: AddonTokenizer, { ids, targets }: EncodedConversation): SpelledToken[] {
  const mayJoin = (place: number, first: number) => targets[place] === targets[first];
  return spellTokens(tokenizer, ids, mayJoin).map(({ from, to, text, special }) => ({
    text,
    ids: Array.from(ids.subarray(from, to)),
    special,
    target: targets[from] === 1,
  }));
}

function cancelledAnswer(promptTokens: number): Answer {
  return {
    text: '',
    ids: [],
    stopReason: 'cancelled',
    promptTokens,
    timeToFirstTokenMs: 0,
    tokensPerSecond: 0,
  };
}

function batchTexts(tell: TellText): { add(text: string): void; flush(): void } {
  let waiting = '';
  let tokens = 0;
  let told = 0;
  let timer: NodeJS.Timeout | undefined;
  const flush = () => {
    clearTimeout(timer);
    timer = undefined;
    if (tokens === told) return;
    tell(waiting, tokens);
    waiting = '';
    told = tokens;
  };
  return {
    add(text) {
      waiting += text;
      tokens++;
      // The first token at once: it is what somebody waits for.
      if (tokens === 1) flush();
      else timer ??= setTimeout(flush, textBatchMs);
    },
    flush,
  };
}
