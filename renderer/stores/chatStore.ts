import { defineStore } from 'pinia';
import { computed, shallowRef, type ShallowRef } from 'vue';
import type { ChatMessage, ChatThread, Sampling } from '../../core/shared/chat/chat.ts';
import type { CallResult } from '../../core/shared/contract/contract.ts';
import { CaravanError, type ContractErrorData } from '../../core/shared/contract/errors.ts';
import type { Message } from '../../core/shared/dataset/source.ts';
import { useFrameBatch } from '../composables/useFrameBatch.ts';
import { useHost } from './host.ts';

export interface StreamingAnswer {
  answerId: string;
  model: string;
  text: string;
  tokens: number;
  startedAt: number;
  stopping: boolean;
}

/** One thread as the window holds it. */
export interface Conversation {
  thread: ChatThread | null;
  messages: ChatMessage[];
  answering: StreamingAnswer | null;
  /** What became of the last question, where it was no answer. */
  problem: ContractErrorData | null;
}

export interface AnswerOptions {
  model: string;
  system: string;
  sampling: Sampling;
  template: 'auto' | 'camelidae' | 'model';
}

export const useChatStore = defineStore('chat', () => {
  const host = useHost();
  const threads = shallowRef<ChatThread[]>([]);
  const loaded = shallowRef(false);
  const conversations = new Map<string, ShallowRef<Conversation>>();
  const streaming = new Map<string, ShallowRef<Conversation>>();
  const changed = new Set<ShallowRef<Conversation>>();
  const announce = useFrameBatch(() => {
    for (const conversation of changed) {
      const { answering } = conversation.value;
      conversation.value = { ...conversation.value, answering: answering && { ...answering } };
    }
    changed.clear();
  });

  function start(): void {
    host.on('answerToken', ({ answerId, text, tokens }) => {
      const conversation = streaming.get(answerId);
      const answer = conversation?.value.answering;
      if (!conversation || !answer) return;
      answer.text += text;
      answer.tokens = tokens;
      changed.add(conversation);
      announce.schedule();
    });
    host.on('threadsChanged', () => void refresh());
    host.onConnected(() => void refresh());
  }

  async function refresh(): Promise<void> {
    try {
      threads.value = (await host.call('listThreads', {})).sort((a, b) => b.updatedAt - a.updatedAt);
      loaded.value = true;
    } catch {
      // The connection went away again; its return brings us back here.
    }
  }

  /** The thread's conversation, shared by all who show it; read from the host at the first call. */
  function conversationOf(id: string): ShallowRef<Conversation> {
    let conversation = conversations.get(id);
    if (!conversation) {
      conversation = shallowRef<Conversation>({ thread: null, messages: [], answering: null, problem: null });
      conversations.set(id, conversation);
    }
    return conversation;
  }
  async function openThread(id: string): Promise<void> {
    const conversation = conversationOf(id);
    try {
      const { thread, messages } = await host.call('readThread', { id });
      if (conversation.value.answering !== null) return;
      const { problem } = conversation.value;
      // What the host kept of an answer that the connection was lost in is here again.
      const over = problem?.code === 'host_unreachable' ? null : problem;
      conversation.value = { thread, messages, answering: null, problem: over };
    } catch (error) {
      conversation.value = { ...conversation.value, problem: CaravanError.from(error).toData() };
    }
  }
  async function createThread(title: string, model: string, parent: string | null): Promise<ChatThread> {
    const thread = await host.call('createThread', { title, model, parent });
    const conversation = conversationOf(thread.id);
    conversation.value = { ...conversation.value, thread };
    threads.value = [thread, ...threads.value.filter((other) => other.id !== thread.id)];
    return thread;
  }
  async function removeThread(id: string): Promise<void> {
    await host.call('removeThread', { id });
    conversations.delete(id);
    await refresh();
  }
  /** Lets a pane become a thread of its own. */
  async function release(id: string): Promise<void> {
    await host.call('updateThread', { id, parent: null });
    await refresh();
  }

  /** Asks and streams the answer into the conversation. */
  function ask(id: string, question: string, options: AnswerOptions): Promise<void> {
    return generate(id, [...conversationOf(id).value.messages, localMessage('user', question)], options);
  }
  /** Asks a question of the conversation once more, in other words if given; what came after it goes. */
  function askAgain(id: string, options: AnswerOptions, at?: number, question?: string): Promise<void> {
    const { messages } = conversationOf(id).value;
    const place = at ?? messages.findLastIndex(({ role }) => role === 'user');
    const asked = question === undefined ? messages[place]! : localMessage('user', question);
    return generate(id, [...messages.slice(0, place), asked], options);
  }
  /** Lets the last answer, which was cut, go on. */
  function goOn(id: string, options: AnswerOptions): Promise<void> {
    return generate(id, conversationOf(id).value.messages, options, true);
  }

  async function generate(
    id: string,
    messages: ChatMessage[],
    options: AnswerOptions,
    continues = false,
  ): Promise<void> {
    const conversation = conversationOf(id);
    if (conversation.value.answering !== null) return;
    const begun = continues ? messages.at(-1)!.content : '';
    const before = continues ? messages.slice(0, -1) : messages;
    const answerId = crypto.randomUUID();
    conversation.value = {
      ...conversation.value,
      messages: before,
      problem: null,
      answering: {
        answerId,
        model: options.model,
        text: begun,
        tokens: 0,
        startedAt: Date.now(),
        stopping: false,
      },
    };
    streaming.set(answerId, conversation);
    try {
      const answer = await host.call('generateAnswer', {
        answerId,
        model: options.model,
        messages: promptOf(messages, options.system),
        template: options.template,
        sampling: options.sampling,
        threadId: id,
        continues,
      });
      conversation.value = {
        ...conversation.value,
        messages: [...before, answerMessage(begun, answer, options.model)],
        answering: null,
      };
    } catch (error) {
      const partial = conversation.value.answering?.text ?? '';
      const problem = CaravanError.from(error).toData();
      conversation.value = {
        ...conversation.value,
        messages: partial === '' ? before : [...before, localMessage('assistant', partial, options.model)],
        answering: null,
        problem: problem.code === 'cancelled' ? null : problem,
      };
      return;
    } finally {
      streaming.delete(answerId);
    }
    // The host's own record, with the ids of its messages.
    await openThread(id);
  }
  async function stop(id: string): Promise<void> {
    const conversation = conversationOf(id);
    const { answering } = conversation.value;
    if (!answering) return;
    conversation.value = { ...conversation.value, answering: { ...answering, stopping: true } };
    await host.call('cancelAnswer', { answerId: answering.answerId });
  }

  /** Threads of their own, without those that stand beside one. */
  const topThreads = computed(() => threads.value.filter(({ parent }) => parent === null));
  /** The threads beside one, in the order in which they were put there. */
  function panesBeside(id: string): ChatThread[] {
    return threads.value
      .filter(({ parent }) => parent === id)
      .sort((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1));
  }

  return {
    threads,
    topThreads,
    loaded,
    start,
    conversationOf,
    openThread,
    createThread,
    removeThread,
    release,
    panesBeside,
    ask,
    askAgain,
    goOn,
    stop,
  };
});

function promptOf(messages: readonly ChatMessage[], system: string): Message[] {
  const said = messages
    .filter(({ role }) => role !== 'system')
    .map(({ role, content }) => ({ role, content }));
  return system.trim() === '' ? said : [{ role: 'system', content: system }, ...said];
}

function localMessage(role: 'user' | 'assistant', content: string, model: string | null = null): ChatMessage {
  return { id: crypto.randomUUID(), role, content, model, answer: null, createdAt: Date.now() };
}

function answerMessage(
  begun: string,
  { text, facts }: CallResult<'generateAnswer'>,
  model: string,
): ChatMessage {
  return { ...localMessage('assistant', begun + text, model), answer: facts };
}
