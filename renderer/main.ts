import './app/jitless.ts';
import './app/theme/tokens.css';
import './app/theme/base.css';
import { createPinia } from 'pinia';
import { createApp, watchEffect } from 'vue';
import type { Workbench } from '../core/shared/contract/workbench.ts';
import App from './app/App.vue';
import { browserWorkbench } from './app/browserWorkbench.ts';
import { openTarget } from './app/openTarget.ts';
import { createRoutes } from './app/routes.ts';
import { theme, watchSystemTheme } from './app/theme/theme.ts';
import { useChatStore } from './stores/chatStore.ts';
import { createHostLink, provideHost } from './stores/host.ts';
import { useJobStore } from './stores/jobStore.ts';
import { useLibraryStore } from './stores/libraryStore.ts';
import { useMetricStore } from './stores/metricStore.ts';
import { useRunStore } from './stores/runStore.ts';
import { useSystemStore } from './stores/systemStore.ts';

declare global {
  interface Window {
    /** Set by the app's preload script; absent in a browser. */
    workbench?: Workbench;
  }
}

const link = createHostLink(window.workbench ?? browserWorkbench(new URL(window.location.href)));
provideHost(link);
window.addEventListener('online', () => link.retryNow());
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') link.retryNow();
});

const app = createApp(App).use(createPinia());
useRunStore().start();
useJobStore().start();
useLibraryStore().start();
useMetricStore().start();
useChatStore().start();
useSystemStore().start();
watchSystemTheme();
// Strong contrast is light or dark as the system has it.
watchEffect(
  () => void window.workbench?.desktop?.setTheme(theme.value === 'contrast' ? 'system' : theme.value),
);
const router = createRoutes();
app.use(router).mount('#app');
window.workbench?.desktop?.onOpen((target) => openTarget(router, target));
