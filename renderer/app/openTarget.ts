import type { Router } from 'vue-router';
import { openTargetSchema } from '../../core/shared/contract/workbench.ts';
import { useOpenedFileStore } from '../stores/openedFileStore.ts';

/** Shows what the app was asked to open: a screen, or a file in the form that it fills. */
export function openTarget(router: Router, given: unknown): void {
  const target = openTargetSchema.parse(given);
  if (target.kind === 'route') {
    void router.push(target.path);
    return;
  }
  useOpenedFileStore().file = target;
  void router.push(target.kind === 'recipe' ? '/datasets/mix' : '/train');
}
