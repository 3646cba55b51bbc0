import { randomUUID } from 'node:crypto';
import type { Answer, ChatMessage, ChatThread } from '../../shared/chat/chat.ts';
import type { Message } from '../../shared/dataset/source.ts';
import type { Store } from '../../store/openStore.ts';

export interface ThreadTable {
  add(thread: ChatThread): void;
  get(id: string): ChatThread | null;
  /** The last talked in first. */
  list(): ChatThread[];
  remove(id: string): void;
  messages(threadId: string): ChatMessage[];
  /** Makes the thread hold exactly this conversation: what differs from some message on is replaced. */
  settle(threadId: string, messages: readonly Message[], at: number): void;
  /** Adds the beginning of an answer, or its next state, under its message's id. */
  saveAnswer(
    threadId: string,
    messageId: string,
    text: string,
    model: string,
    answer: Answer | null,
    at: number,
  ): void;
}

interface MessageRow {
  id: string;
  role: Message['role'];
  content: string;
  model: string | null;
  answer: string | null;
  created_at: number;
}

export function createThreadTable(store: Store): ThreadTable {
  const columns = 'id, title, model, created_at AS createdAt, updated_at AS updatedAt';
  const rowsOf = (threadId: string) =>
    store.all<MessageRow>('SELECT * FROM messages WHERE thread_id = ? ORDER BY n', [threadId]);
  const nextNumber = (threadId: string) =>
    store.get<{ n: number }>('SELECT coalesce(max(n), -1) + 1 AS n FROM messages WHERE thread_id = ?', [
      threadId,
    ])!.n;
  const touch = (threadId: string, at: number) =>
    store.run('UPDATE threads SET updated_at = ? WHERE id = ?', [at, threadId]);
  return {
    add({ id, title, model, createdAt, updatedAt }) {
      store.run('INSERT INTO threads VALUES (?, ?, ?, ?, ?)', [id, title, model, createdAt, updatedAt]);
    },
    get: (id) => store.get<ChatThread>(`SELECT ${columns} FROM threads WHERE id = ?`, [id]) ?? null,
    list: () => store.all<ChatThread>(`SELECT ${columns} FROM threads ORDER BY updated_at DESC`),
    remove(id) {
      store.run('DELETE FROM threads WHERE id = ?', [id]);
    },
    messages: (threadId) =>
      rowsOf(threadId).map((row) => ({
        id: row.id,
        role: row.role,
        content: row.content,
        model: row.model,
        answer: row.answer === null ? null : (JSON.parse(row.answer) as ChatMessage['answer']),
        createdAt: row.created_at,
      })),
    settle(threadId, messages, at) {
      store.transaction(() => {
        const kept = rowsOf(threadId);
        let same = 0;
        while (
          same < kept.length &&
          kept[same]?.role === messages[same]?.role &&
          kept[same]?.content === messages[same]?.content
        )
          same++;
        for (const { id } of kept.slice(same)) store.run('DELETE FROM messages WHERE id = ?', [id]);
        for (const { role, content } of messages.slice(same))
          store.run('INSERT INTO messages VALUES (?, ?, ?, ?, ?, NULL, NULL, ?)', [
            randomUUID(),
            threadId,
            nextNumber(threadId),
            role,
            content,
            at,
          ]);
        touch(threadId, at);
      });
    },
    saveAnswer(threadId, messageId, text, model, answer, at) {
      const { text: _text, ids: _ids, ...facts } = answer ?? { text, ids: [] };
      store.transaction(() => {
        // The thread may have been removed while the answer was on its way.
        if (!store.get('SELECT 1 FROM threads WHERE id = ?', [threadId])) return;
        store.run(
          `INSERT INTO messages VALUES (:id, :thread, :n, 'assistant', :text, :model, :answer, :at)
           ON CONFLICT (id) DO UPDATE SET content = :text, answer = :answer`,
          {
            id: messageId,
            thread: threadId,
            n: nextNumber(threadId),
            text,
            model,
            answer: answer && JSON.stringify(facts),
            at,
          },
        );
        touch(threadId, at);
      });
    },
  };
}
