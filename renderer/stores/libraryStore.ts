import { defineStore } from 'pinia';
import { shallowRef } from 'vue';
import type { Mix } from '../../core/shared/dataset/recipe.ts';
import type { Source } from '../../core/shared/dataset/source.ts';
import type { Export } from '../../core/shared/model/export.ts';
import type { Model } from '../../core/shared/model/model.ts';
import { useHost } from './host.ts';

/** What training works with and what it made for others: sources, mixes, models, exports. */
export const useLibraryStore = defineStore('library', () => {
  const host = useHost();
  const sources = shallowRef<Source[]>([]);
  const mixes = shallowRef<Mix[]>([]);
  const models = shallowRef<Model[]>([]);
  const exports = shallowRef<Export[]>([]);
  const loaded = shallowRef(false);

  const read = {
    sources: async () => void (sources.value = await host.call('listSources', {})),
    mixes: async () => void (mixes.value = await host.call('listMixes', {})),
    models: async () => void (models.value = await host.call('listModels', {})),
    exports: async () => void (exports.value = await host.call('listExports', {})),
  };
  /** A failed read means a lost connection (which reads again) or a host that says so elsewhere. */
  const quietly = (work: Promise<void>) => work.catch(() => undefined);

  function start(): void {
    host.on('sourcesChanged', () => void quietly(read.sources()));
    host.on('mixesChanged', () => void quietly(read.mixes()));
    host.on('modelsChanged', () => void quietly(read.models()));
    host.on('exportsChanged', () => void quietly(read.exports()));
    host.onConnected(() => {
      void Promise.all(Object.values(read).map((one) => quietly(one()))).then(() => (loaded.value = true));
    });
  }
  return { sources, mixes, models, exports, loaded, start };
});
