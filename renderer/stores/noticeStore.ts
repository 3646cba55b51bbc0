import { defineStore } from 'pinia';
import { shallowRef } from 'vue';
import { CaravanError } from '../../core/shared/contract/errors.ts';

export interface Notice {
  id: number;
  tone: 'plain' | 'danger';
  text: string;
  mend?: string;
  action?: { label: string; run: () => void };
}

/** The few messages that belong to no place on the screen. What has a place is shown there. */
export const useNoticeStore = defineStore('notice', () => {
  const notices = shallowRef<Notice[]>([]);
  let next = 1;

  function show(notice: Omit<Notice, 'id'>, lastsMs = 6000): void {
    const id = next++;
    notices.value = [...notices.value.filter((other) => other.text !== notice.text), { ...notice, id }].slice(
      -3,
    );
    if (notice.tone === 'plain') setTimeout(() => dismiss(id), lastsMs);
  }
  function fail(error: unknown): void {
    const { message, mend } = CaravanError.from(error);
    show({ tone: 'danger', text: sentence(message), ...(mend && { mend }) });
  }
  function dismiss(id: number): void {
    notices.value = notices.value.filter((notice) => notice.id !== id);
  }
  /** Runs a command whose failure has no place of its own. */
  async function attempt<T>(work: Promise<T>): Promise<T | undefined> {
    try {
      return await work;
    } catch (error) {
      fail(error);
      return undefined;
    }
  }
  return { notices, show, fail, dismiss, attempt };
});

function sentence(text: string): string {
  return text === '' ? text : text[0]!.toUpperCase() + text.slice(1);
}
