import { useDocumentVisibility, useIntervalFn } from '@vueuse/core';
import { defineStore } from 'pinia';
import { shallowRef } from 'vue';
import type { CallResult } from '../../core/shared/contract/contract.ts';
import { useHost } from './host.ts';

/** The machine as the host sees it, every few seconds while the window is looked at. */
export const useSystemStore = defineStore('system', () => {
  const host = useHost();
  const status = shallowRef<CallResult<'systemStatus'> | null>(null);
  const visibility = useDocumentVisibility();

  async function read(): Promise<void> {
    if (host.state.value.kind !== 'connected' || visibility.value !== 'visible') return;
    try {
      status.value = await host.call('systemStatus', {});
    } catch {
      // Shown by the connection's own banner; the next reading tries again.
    }
  }
  function start(): void {
    host.onConnected(() => void read());
    useIntervalFn(read, 5000);
  }
  return { status, start };
});
