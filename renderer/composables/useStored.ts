import { useLocalStorage, type RemovableRef } from '@vueuse/core';

/** A preference of this window, kept in the browser's storage; never anything that the host must know. */
export function useStored<T>(name: string, initial: T): RemovableRef<T> {
  return useLocalStorage<T>(`caravan.${name}`, initial, { shallow: true, mergeDefaults: false });
}
