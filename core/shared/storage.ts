import * as z from 'zod';

/** What lies in a home, by what it is for. */
export const storageKinds = [
  'runs',
  'sources',
  'mixes',
  'models',
  'hub',
  'looking',
  'previews',
  'trash',
  'backups',
  'database',
  'logs',
] as const;
export type StorageKind = (typeof storageKinds)[number];

/** What can be cleaned up without losing anything that somebody kept. */
export const cleanableKinds = ['looking', 'previews', 'trash', 'backups'] as const;
export type CleanableKind = (typeof cleanableKinds)[number];

export const storageShareSchema = z.object({
  kind: z.enum(storageKinds),
  bytes: z.number(),
  /** What a clean-up would free now; null where there is nothing to clean up. */
  freeableBytes: z.number().nullable(),
});
export type StorageShare = z.infer<typeof storageShareSchema>;

export const storageSchema = z.object({
  home: z.string(),
  shares: z.array(storageShareSchema),
  disk: z.object({ totalBytes: z.number(), freeBytes: z.number() }),
});

export const cleanUpSchema = z.object({
  freedBytes: z.number(),
  /** What was removed, or would be. */
  freed: z.array(z.object({ kind: z.enum(cleanableKinds), what: z.string(), bytes: z.number() })),
  /** What stays, and why. */
  kept: z.array(z.object({ kind: z.enum(cleanableKinds), what: z.string(), why: z.string() })),
});
export type CleanUp = z.infer<typeof cleanUpSchema>;

export const storageWords: Record<StorageKind, { title: string; what: string }> = {
  runs: { title: 'Runs', what: 'settings, metrics, logs and checkpoints' },
  sources: { title: 'Sources', what: 'imported rows' },
  mixes: { title: 'Mixes', what: 'built mixes with their tokens' },
  models: { title: 'Models', what: 'copies that the library keeps' },
  hub: { title: 'Hub', what: 'what was downloaded' },
  looking: { title: 'Row indexes', what: 'made when a dataset is looked at, and made again when it is next' },
  previews: { title: 'Previews of mixes', what: 'made again when a recipe is previewed' },
  trash: { title: 'Trash', what: 'runs, sources and mixes that were moved there: gone for good' },
  backups: { title: 'Copies of the database', what: 'from before updates; the newest stays' },
  database: { title: 'Database', what: 'the index of it all' },
  logs: { title: 'Logs', what: 'of the host' },
};
