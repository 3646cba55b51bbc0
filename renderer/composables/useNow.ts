import { createSharedComposable, useIntervalFn } from '@vueuse/core';
import { readonly, shallowRef } from 'vue';

/** The time, once a second, shared by all who show an age or an elapsed time. */
export const useNow = createSharedComposable(() => {
  const now = shallowRef(Date.now());
  useIntervalFn(() => (now.value = Date.now()), 1000);
  return readonly(now);
});
