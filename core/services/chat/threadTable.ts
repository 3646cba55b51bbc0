import { randomUUID } from 'node:crypto';
import type { AnswerFacts, ChatMessage, ChatThread } from '../../shared/chat/chat.ts';
import type { Message } from '../../shared/dataset/source.ts';
import type { Store } from '../../store/openStore.ts';

export interface ThreadTable {
  add(thread: ChatThread): void;
  get(id: string): ChatThread | null;
  /** The last talked in first. */
  list(): ChatThread[];
  /** Takes over title and parent. */
  update(thread: ChatThread): void;
  remove(id: string): void;
  /** Threads that hold the text, each with the message that does; an empty excerpt where it is the title. */
  search(text: string, limit: number): { thread: ChatThread; excerpt: string }[];
  messages(threadId: string): ChatMessage[];
  /** Gives an empty thread the messages of another, up to one of them. */
  copyMessages(from: string, to: string, lastId: string): void;
  /** Makes the thread hold exactly this conversation: what differs from some message on is replaced. Another system prompt
   * alone replaces no answer. */
  settle(threadId: string, messages: readonly Message[], at: number): void;
  /** Adds the beginning of an answer, or its next state, under its message's id. */
  saveAnswer(
    threadId: string,
    messageId: string,
    text: string,
    model: string,
    answer: AnswerFacts | null,
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
  const columns = 'id, title, model, parent, created_at AS createdAt, updated_at AS updatedAt';
  const rowsOf = (threadId: string) =>
    store.all<MessageRow>('SELECT * FROM messages WHERE thread_id = ? ORDER BY n', [threadId]);
  const nextNumber = (threadId: string) =>
    store.get<{ n: number }>('SELECT coalesce(max(n), -1) + 1 AS n FROM messages WHERE thread_id = ?', [
      threadId,
    ])!.n;
  const touch = (threadId: string, at: number) =>
    store.run('UPDATE threads SET updated_at = ? WHERE id = ?', [at, threadId]);
  /** Its number is below all others', whatever comes and goes. */
  function settleSystem(threadId: string, messages: readonly Message[], at: number): void {
    const before = rowsOf(threadId)[0];
    const now = messages[0]?.role === 'system' ? messages[0].content : null;
    if (before?.role === 'system') {
      if (now === null) store.run('DELETE FROM messages WHERE id = ?', [before.id]);
      else store.run('UPDATE messages SET content = ? WHERE id = ?', [now, before.id]);
    } else if (now !== null)
      store.run(`INSERT INTO messages VALUES (?, ?, -1, 'system', ?, NULL, NULL, ?)`, [
        randomUUID(),
        threadId,
        now,
        at,
      ]);
  }
  return {
    add(thread) {
      store.run(
        'INSERT INTO threads (id, title, model, parent, created_at, updated_at) VALUES (:id, :title, :model, :parent, :createdAt, :updatedAt)',
        { ...thread },
      );
    },
    get: (id) => store.get<ChatThread>(`SELECT ${columns} FROM threads WHERE id = ?`, [id]) ?? null,
    list: () => store.all<ChatThread>(`SELECT ${columns} FROM threads ORDER BY updated_at DESC`),
    update({ id, title, parent }) {
      store.run('UPDATE threads SET title = ?, parent = ? WHERE id = ?', [title, parent, id]);
    },
    remove(id) {
      store.run('DELETE FROM threads WHERE id = ?', [id]);
    },
    search(text, limit) {
      const found = store.all<ChatThread & { found: string | null }>(
        `SELECT ${columns}, (SELECT content FROM messages
           WHERE thread_id = threads.id AND content LIKE :like ESCAPE '\\' ORDER BY n LIMIT 1) AS found
         FROM threads WHERE found IS NOT NULL OR title LIKE :like ESCAPE '\\' ORDER BY updated_at DESC LIMIT :limit`,
        { like: `%${text.replaceAll(/[\\%_]/g, '\\$&')}%`, limit },
      );
      return found.map(({ found: content, ...thread }) => ({
        thread,
        excerpt: content === null ? '' : excerptAround(content, text),
      }));
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
    copyMessages(from, to, lastId) {
      const rows = rowsOf(from);
      const count = rows.findIndex(({ id }) => id === lastId) + 1;
      store.transaction(() => {
        for (const [n, { role, content, model, answer, created_at: at }] of rows.slice(0, count).entries())
          store.run('INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)', [
            randomUUID(),
            to,
            n,
            role,
            content,
            model,
            answer,
            at,
          ]);
      });
    },
    settle(threadId, messages, at) {
      store.transaction(() => {
        settleSystem(threadId, messages, at);
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
            answer: answer && JSON.stringify(answer),
            at,
          },
        );
        touch(threadId, at);
      });
    },
  };
}

const excerptChars = 120;

/** One line of the content around the place where the text occurs. */
function excerptAround(content: string, text: string): string {
  const at = Math.max(0, content.toLowerCase().indexOf(text.toLowerCase()));
  const from = Math.max(0, at - excerptChars / 3);
  const part = content
    .slice(from, from + excerptChars)
    .replaceAll(/\s+/g, ' ')
    .trim()
    .toWellFormed();
  return `${from > 0 ? '…' : ''}${part}${from + excerptChars < content.length ? '…' : ''}`;
}
