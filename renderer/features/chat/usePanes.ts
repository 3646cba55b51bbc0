/** The conversations that stand side by side: a thread, those beside it, and models whose thread the next question begins. */
import { tryOnScopeDispose } from '@vueuse/core';
import { computed, shallowRef, watch } from 'vue';
import { useRoute, useRouter } from 'vue-router';
import { useChatStore, type Conversation } from '../../stores/chatStore.ts';
import { useHost } from '../../stores/host.ts';
import { useModelChoices } from './modelChoices.ts';

export const mostPanes = 4;

export interface Pane {
  key: string;
  /** Null until the first question. */
  threadId: string | null;
  conversation: Conversation;
  model: string;
}

const empty: Conversation = { thread: null, messages: [], answering: null, problem: null };

export function usePanes(id: () => string | undefined) {
  const chatStore = useChatStore();
  const host = useHost();
  const route = useRoute();
  const router = useRouter();
  const { choices, baseOf } = useModelChoices();

  const threadIds = computed(() => {
    const first = id();
    return first === undefined ? [] : [first, ...chatStore.panesBeside(first).map((thread) => thread.id)];
  });
  /** Models that were put beside, from the address. */
  const added = computed(() => [route.query['with'] ?? []].flat().flatMap((ref) => ref ?? []));

  const readAll = () => {
    for (const thread of threadIds.value) void chatStore.openThread(thread);
  };
  watch(threadIds, (now, before) => {
    for (const thread of now) if (!before.includes(thread)) void chatStore.openThread(thread);
  });
  tryOnScopeDispose(host.onConnected(readAll));
  // Another window, or an answer that outlived a reload of this one.
  tryOnScopeDispose(host.on('threadsChanged', readAll));
  // A pane is shown where it stands: beside its thread.
  watch(
    () => chatStore.threads.find((thread) => thread.id === id())?.parent,
    (parent) => {
      if (parent) void router.replace(`/chat/${parent}`);
    },
    { immediate: true },
  );

  /** The model of the next answer: what was picked here, else what answered last, else what the address or the list says. */
  const picked = shallowRef<Record<string, string>>({});
  const panes = computed<Pane[]>(() => {
    const asked = typeof route.query['model'] === 'string' ? route.query['model'] : undefined;
    const kept = threadIds.value.map((threadId) => ({
      key: threadId,
      threadId,
      conversation: chatStore.conversationOf(threadId).value,
      wanted: undefined as string | undefined,
    }));
    const fresh = (kept.length === 0 ? [asked, ...added.value] : added.value).map((wanted, index) => ({
      key: `new:${kept.length === 0 ? index : index + 1}`,
      threadId: null,
      conversation: empty,
      wanted,
    }));
    return [...kept, ...fresh].map(({ wanted, ...pane }) => ({
      ...pane,
      model:
        picked.value[pane.key] ??
        pane.conversation.messages.findLast(({ model }) => model !== null)?.model ??
        pane.conversation.thread?.model ??
        wanted ??
        choices.value[0]?.ref ??
        '',
    }));
  });

  function pick(pane: Pane, ref: string): void {
    picked.value = { ...picked.value, [pane.key]: ref };
  }
  function add(): void {
    const used = panes.value.map(({ model }) => model);
    const base = baseOf(used[0]!);
    const next =
      base !== null && !used.includes(base)
        ? base
        : (choices.value.find(({ ref }) => !used.includes(ref))?.ref ?? used[0]!);
    void router.replace({ query: { ...route.query, with: [...added.value, next] } });
  }
  async function close(pane: Pane): Promise<void> {
    if (pane.threadId !== null) {
      await chatStore.release(pane.threadId);
      return;
    }
    const place =
      panes.value.filter(({ threadId }) => threadId === null).indexOf(pane) - (id() === undefined ? 1 : 0);
    const { [pane.key]: _, ...others } = picked.value;
    picked.value = others;
    await router.replace({
      query: { ...route.query, with: added.value.filter((__, index) => index !== place) },
    });
  }
  /** Gives every pane a thread. @returns their ids, in order */
  async function begin(title: string): Promise<string[]> {
    const ids: string[] = [];
    for (const pane of [...panes.value])
      ids.push(pane.threadId ?? (await chatStore.createThread(title, pane.model, ids[0] ?? null)).id);
    picked.value = {};
    const { with: _, model: __, ...query } = route.query;
    await router.replace({ path: `/chat/${ids[0]!}`, query });
    return ids;
  }

  return { panes, pick, add, close, begin };
}
