import type { Addon } from '../engine/AddonTypes.ts';

/** What a request tells while it works. */
export type Report = (progress: { done: number; total: number | null; unit: string; stage: string }) => void;

/** Loads the addon at first use: imports need none. */
export type AddonLoader = () => Addon;
