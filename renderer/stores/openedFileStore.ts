import { defineStore } from 'pinia';
import { shallowRef } from 'vue';
import type { OpenTarget } from '../../core/shared/contract/workbench.ts';

export type OpenedFile = Exclude<OpenTarget, { kind: 'route' }>;

/** A recipe.yaml or run.yaml that the app was asked to open, on its way to the screen that has its form. */
export const useOpenedFileStore = defineStore('openedFile', () => {
  const file = shallowRef<OpenedFile | null>(null);

  /** The file, where it is of this kind; it is handed out once. */
  function take(kind: OpenedFile['kind']): OpenedFile | null {
    const found = file.value;
    if (found?.kind !== kind) return null;
    file.value = null;
    return found;
  }
  return { file, take };
});
