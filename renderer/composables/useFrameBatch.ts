import { tryOnScopeDispose } from '@vueuse/core';

/**
 * Many calls, one run per animation frame. Frames stop in a hidden window: what `schedule` announces must already be
 * stored.
 */
export function useFrameBatch(run: () => void): { schedule: () => void; cancel: () => void } {
  let frame = 0;
  function schedule(): void {
    if (frame !== 0) return;
    frame = requestAnimationFrame(() => {
      frame = 0;
      run();
    });
  }
  function cancel(): void {
    cancelAnimationFrame(frame);
    frame = 0;
  }
  tryOnScopeDispose(cancel);
  return { schedule, cancel };
}
