import { randomUUID } from 'node:crypto';
import type { CallParams, CallResult } from '../../shared/contract/contract.ts';
import { wallClock } from '../../shared/clock.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { AnswerFacts, ChatThread } from '../../shared/chat/chat.ts';
import type { Message } from '../../shared/dataset/source.ts';
import { mutualInformation } from '../../shared/model/routing.ts';
import type { OpenModelOptions } from '../../engine/AddonTypes.ts';
import type { PromptRequest } from '../../engine/client.ts';
import type { ResolvedModel } from '../models/index.ts';
import type { ChatDeps, ChatService } from './chatTypes.ts';
import { createTokenStream } from './createTokenStream.ts';
import { chooseTemplate, openOptions, type BaseDtype } from './modelOptions.ts';
import { createThreadTable } from './threadTable.ts';

/** Of an answer that is on its way, no more than this is lost with the host. */
const keepEveryMs = 1000;

/** Talking to models, scoring texts, and seeing which experts they choose. Conversations are kept as threads. */
export function createChatService({
  store,
  emit,
  engines,
  models,
  clock = wallClock,
}: ChatDeps): ChatService {
  const threads = createThreadTable(store);
  /** Answers on their way, and whether someone wants them no more. */
  const answering = new Map<string, { cancelled: boolean }>();
  const { inference } = engines;

  async function open(
    ref: string,
    baseDtype?: BaseDtype,
  ): Promise<{
    resolved: ResolvedModel;
    options: OpenModelOptions;
    hasExperts: boolean;
    contextSize: number;
  }> {
    const resolved = await models.resolve(ref);
    const { model, trained, adapterDir, dir } = resolved;
    const { storedDtypes, experts, maxPositions } = model ?? (await models.inspect(dir));
    const method = trained?.config.method;
    return {
      resolved,
      options: openOptions(resolved, storedDtypes, baseDtype),
      // Whether an adapter has some is the engine's to say.
      hasExperts:
        method === 'pesc' || method === 'upcycle' || experts !== undefined || adapterDir !== undefined,
      contextSize: maxPositions,
    };
  }

  function checkHasExperts({ name }: ResolvedModel, hasExperts: boolean): void {
    if (!hasExperts)
      throw new CaravanError('bad_option', `'${name}' has no experts to choose from`, {
        place: { field: 'model' },
        mend: 'Name a run of method pesc or upcycle: run:RUN.',
      });
  }

  async function routeTokens(params: CallParams<'routeTokens'>): Promise<CallResult<'routeTokens'>> {
    const { resolved, options, hasExperts } = await open(params.model, params.baseDtype);
    checkHasExperts(resolved, hasExperts);
    const { tokenizerPath } = resolved;
    const of =
      'text' in params.of
        ? { text: params.of.text, tokenizerPath }
        : promptOf(params.of.messages, params.template, resolved);
    return inference.routeTokens(options, of);
  }

  function promptOf(
    messages: Message[],
    asked: CallParams<'renderPrompt'>['template'],
    resolved: ResolvedModel,
  ): PromptRequest {
    return {
      messages,
      template: chooseTemplate(asked, resolved),
      tokens: resolved.tokens,
      tokenizerPath: resolved.tokenizerPath,
    };
  }

  function threadOf(id: string): ChatThread {
    const thread = threads.get(id);
    if (!thread) throw new CaravanError('not_found', `there is no conversation ${id}`);
    return thread;
  }

  function addThread(title: string, model: string, parent: string | null): ChatThread {
    const at = clock.now();
    const thread = { id: randomUUID(), title, model, parent, createdAt: at, updatedAt: at };
    threads.add(thread);
    return thread;
  }

  function cancel(answerId: string): void {
    const state = answering.get(answerId);
    if (!state) return;
    state.cancelled = true;
    inference.cancel(answerId);
  }

  async function generateAnswer(params: CallParams<'generateAnswer'>): Promise<CallResult<'generateAnswer'>> {
    const { answerId, messages, sampling, threadId, continues } = params;
    if (answering.has(answerId))
      throw new CaravanError('bad_option', `an answer with the id ${answerId} is on its way already`, {
        place: { field: 'answerId' },
      });
    const last = messages.at(-1)!;
    if (continues ? last.role !== 'assistant' || last.content === '' : last.role !== 'user')
      throw new CaravanError(
        'bad_option',
        continues
          ? 'the last message must be an answer with text: there is nothing to go on with'
          : "the last message must be the user's: there is nothing to answer",
        { place: { field: 'messages' } },
      );
    if (threadId !== null) threadOf(threadId);
    const state = { cancelled: false };
    answering.set(answerId, state);
    try {
      const { resolved, options, contextSize } = await open(params.model, params.baseDtype);
      if (state.cancelled) throw new CaravanError('cancelled', 'the answer was cancelled before it began');
      let messageId: string = randomUUID();
      let keptAt = clock.now();
      const begun = continues ? last.content : '';
      const keep = (text: string, facts: AnswerFacts | null) => {
        keptAt = clock.now();
        if (threadId !== null)
          threads.saveAnswer(threadId, messageId, begun + text, params.model, facts, keptAt);
      };
      if (threadId !== null) {
        threads.settle(threadId, messages, clock.now());
        if (continues) messageId = threads.messages(threadId).at(-1)!.id;
        emit('threadsChanged', {});
      }
      const template = chooseTemplate(params.template, resolved);
      const stream = createTokenStream(
        (text, tokens) => {
          emit('answerToken', { answerId, text, tokens });
          if (clock.now() - keptAt >= keepEveryMs) keep(stream.text, null);
        },
        () => clock.now(),
      );
      try {
        const answer = await inference.generate(
          {
            model: options,
            answerId,
            messages,
            template,
            tokens: resolved.tokens,
            tokenizerPath: resolved.tokenizerPath,
            sampling,
            stopIds: resolved.stopIds,
          },
          stream.push,
        );
        stream.flush();
        const { text, ids, ...measured } = answer;
        const facts = { ...measured, tokens: ids.length, contextSize, template, sampling };
        keep(text, facts);
        return { ...answer, facts };
      } catch (error) {
        stream.flush();
        if (stream.text !== '') keep(stream.text, null);
        throw error;
      } finally {
        if (threadId !== null) emit('threadsChanged', {});
      }
    } finally {
      answering.delete(answerId);
    }
  }

  async function completeText({
    answerId,
    model,
    text,
    sampling,
  }: CallParams<'completeText'>): Promise<CallResult<'completeText'>> {
    if (answering.has(answerId))
      throw new CaravanError('bad_option', `an answer with the id ${answerId} is on its way already`, {
        place: { field: 'answerId' },
      });
    const state = { cancelled: false };
    answering.set(answerId, state);
    try {
      const { resolved, options } = await open(model);
      if (state.cancelled) throw new CaravanError('cancelled', 'the text was cancelled before it began');
      const stream = createTokenStream(
        (more, tokens) => emit('answerToken', { answerId, text: more, tokens }),
        () => clock.now(),
      );
      try {
        return await inference.generate(
          {
            ...promptOf([], 'auto', resolved),
            model: options,
            answerId,
            text,
            sampling,
            stopIds: resolved.stopIds,
          },
          stream.push,
        );
      } finally {
        stream.flush();
      }
    } finally {
      answering.delete(answerId);
    }
  }

  async function score({ model, rows, baseDtype }: CallParams<'score'>): Promise<CallResult<'score'>> {
    if (rows.length === 0) return [];
    const { resolved, options } = await open(model, baseDtype);
    const results = await inference.score(options, resolved.tokenizerPath, rows);
    return results.map(({ logprob, tokenLogprobs, ids, greedy }) => ({
      logprob: finite(logprob),
      tokenLogprobs: Array.from(tokenLogprobs, finite),
      ids,
      greedy,
    }));
  }

  async function route({ model, rows, baseDtype }: CallParams<'route'>): Promise<CallResult<'route'>> {
    const { resolved, options, hasExperts } = await open(model, baseDtype);
    checkHasExperts(resolved, hasExperts);
    const sources = [...new Set(rows.map(({ source }) => source))];
    const grouped = rows.map(({ text, source }) => ({ text, group: sources.indexOf(source) }));
    const counts = await inference.route(options, resolved.tokenizerPath, grouped, sources.length);
    const { layers, experts } = counts;
    const size = layers * experts;
    return {
      layers,
      experts,
      sources: sources.map((source, group) => {
        const tokens = counts.tokens[group] ?? 0;
        const shares = (of: Float64Array) =>
          Array.from(of.subarray(group * size, (group + 1) * size), (count) =>
            tokens === 0 ? 0 : count / tokens,
          );
        return {
          source,
          tokens,
          first: shares(counts.first),
          second: shares(counts.second),
          any: shares(counts.any),
        };
      }),
      mutualInformation: mutualInformation(counts),
    };
  }

  return {
    handlers: {
      listThreads: () => threads.list(),
      readThread: ({ id }) => ({ thread: threadOf(id), messages: threads.messages(id) }),
      searchThreads: ({ text, limit }) => threads.search(text, limit),
      updateThread({ id, title, parent }) {
        const old = threadOf(id);
        const thread = { ...old, title: title ?? old.title, parent: parent === null ? null : old.parent };
        threads.update(thread);
        emit('threadsChanged', {});
        return thread;
      },
      branchThread({ id, messageId }) {
        const from = threadOf(id);
        if (!threads.messages(id).some((message) => message.id === messageId))
          throw new CaravanError('not_found', `this conversation has no message ${messageId}`);
        const thread = addThread(`${from.title} (branch)`, from.model, null);
        threads.copyMessages(id, thread.id, messageId);
        emit('threadsChanged', {});
        return thread;
      },
      removeThread({ id }) {
        threadOf(id);
        threads.remove(id);
        emit('threadsChanged', {});
        return {};
      },
      createThread({ title, model, parent }) {
        if (parent !== null && threadOf(parent).parent !== null)
          throw new CaravanError('bad_option', 'a pane stands beside a thread, not beside another pane', {
            place: { field: 'parent' },
          });
        const thread = addThread(title, model, parent);
        emit('threadsChanged', {});
        return thread;
      },
      async renderPrompt({ model, messages, template }) {
        const prompt = promptOf(messages, template, await models.resolve(model));
        const tokens = await inference.renderPrompt(prompt);
        const count = tokens.reduce((sum, { ids }) => sum + ids.length, 0);
        return { template: prompt.template, tokens, count };
      },
      routeTokens,
      generateAnswer,
      completeText,
      cancelAnswer({ answerId }) {
        cancel(answerId);
        return {};
      },
      score,
      route,
    },
    close() {
      for (const answerId of answering.keys()) cancel(answerId);
      return Promise.resolve();
    },
  };
}

/** Messages carry no infinities; the log-probability of the impossible is the smallest number. */
function finite(value: number): number {
  return Number.isFinite(value) ? value : -Number.MAX_VALUE;
}
