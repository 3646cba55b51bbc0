import { tryOnScopeDispose } from '@vueuse/core';
import { defineStore } from 'pinia';
import { computed, shallowRef } from 'vue';

export interface Command {
  id: string;
  title: string;
  group: string;
  shortcut?: string;
  /** Absent: always. A command that cannot run now is not offered. */
  enabled?: () => boolean;
  run: () => void | Promise<void>;
}

/** Every command of the window, and those of the screen that is open. */
export const useCommandStore = defineStore('command', () => {
  const sets = shallowRef<readonly Command[][]>([]);
  const commands = computed(() => sets.value.flat());

  /** Offers commands until the calling component is gone. */
  function provide(commandsOfScreen: Command[]): void {
    sets.value = [...sets.value, commandsOfScreen];
    tryOnScopeDispose(() => {
      sets.value = sets.value.filter((set) => set !== commandsOfScreen);
    });
  }
  return { commands, provide };
});
