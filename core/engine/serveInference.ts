import { stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { encodeConversations } from '../prompt/encodeConversations.ts';
import { renderJinja } from '../prompt/renderJinja.ts';
import type { Answer } from '../shared/chat/chat.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { renderTemplate } from '../shared/dataset/template.ts';
import type { Addon, AddonModel, AddonTokenizer, OpenModelOptions } from './AddonTypes.ts';
import { exportModel } from './exportModel.ts';
import { keepOpen } from './keepOpen.ts';
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

const modelsKept = 2;
const tokenizersKept = 4;
/** Texts wait for one another so long: what comes within one frame of a window is one message. */
const textBatchMs = 16;

type Handlers = {
  [N in RequestName]: (params: RequestParams<N>, tell: Tell) => Promise<RequestResult<N>>;
};

/**
 * On the GPU where there is one and nothing else was said. A plain model that is not stored in f32 computes in bf16
 * there, which the GPU's matrix units are made for; a run's model computes as it was trained.
 */
function placed(addon: Addon, options: OpenModelOptions): OpenModelOptions {
  const device = options.device ?? (addon.devices().some(({ kind }) => kind === 'cuda') ? 'cuda' : 'cpu');
  const plain = options.checkpointDir === undefined && options.baseDtype !== 'f32';
  return { ...options, device, ...(device === 'cuda' && plain && { computeDtype: 'bf16' }) };
}

export function serveInference(addon: Addon): ServedInference {
  const models = keepOpen<AddonModel>(modelsKept);
  const tokenizers = keepOpen<AddonTokenizer>(tokenizersKept);
  /** Exports under way, by their ids. */
  const exports = new Map<string, AbortController>();
  /** Answers under way, by their ids; the model is known once it is open. */
  const answers = new Map<string, { cancelled: boolean; model: AddonModel | null }>();

  function withModel<R>(asked: OpenModelOptions, use: (model: AddonModel) => Promise<R>): Promise<R> {
    const options = placed(addon, asked);
    const key = JSON.stringify(Object.entries(options).sort(([a], [b]) => (a < b ? -1 : 1)));
    return models.with(key, () => addon.openModel(options), use);
  }

  async function withTokenizer<R>(path: string, use: (tokenizer: AddonTokenizer) => Promise<R>): Promise<R> {
    // A file that is written anew is another tokenizer.
    const changed = await stat(path).then(
      ({ mtimeMs, size }) => `${mtimeMs} ${size}`,
      () => 'absent',
    );
    return tokenizers.with(`${path}\n${changed}`, () => addon.openTokenizer(path), use);
  }

  async function generate(params: RequestParams<'generate'>, tell: TellText): Promise<Answer> {
    const { answerId, messages, template, tokens, sampling } = params;
    if (answers.has(answerId))
      throw new CaravanError('bad_option', `answerId "${answerId}" is that of an answer under way`);
    const answer = { cancelled: false, model: null as AddonModel | null };
    answers.set(answerId, answer);
    const texts = batchTexts(tell);
    try {
      return await withTokenizer(params.tokenizerPath, (tokenizer) =>
        withModel(params.model, async (model): Promise<Answer> => {
          const started = performance.now();
          const pieces = renderTemplate(template, messages, tokens, renderJinja);
          const [prompt] = await encodeConversations(tokenizer, [pieces], 1);
          const eos = tokens.eos === null ? null : tokenizer.tokenToId(tokens.eos);
          if (answer.cancelled) return cancelledAnswer(prompt!.ids.length);
          answer.model = model;
          const first: { ms?: number } = {};
          const { maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stop } = sampling;
          const result = await model.generate(
            {
              generationId: answerId,
              promptIds: prompt!.ids,
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
    plan: ({ options }) => addon.planTraining(options),
    async probe({ options }) {
      // It measures what training will have: the memory of models that nobody talks to.
      await models.closeIdle();
      return addon.probeTraining(options);
    },
    listCheckpoints: ({ checkpointDir }) => addon.listCheckpoints(checkpointDir),
    devices: () => Promise.resolve(addon.devices()),
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
