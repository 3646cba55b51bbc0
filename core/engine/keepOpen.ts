/** Things that are costly to open: kept by key, the ones used last, and never closed under a user. */
export interface KeptOpen<T> {
  /** `use` runs with the thing of that key, which is opened if it is not open yet. */
  with<R>(key: string, open: () => Promise<T>, use: (thing: T) => Promise<R>): Promise<R>;
  /** Closes what nobody uses. */
  closeIdle(): Promise<void>;
}

export function keepOpen<T extends { dispose(): void }>(most: number): KeptOpen<T> {
  /** In the order of last use. */
  const entries = new Map<string, { opening: Promise<T>; users: number }>();

  async function shrink(limit: number): Promise<void> {
    for (const [key, entry] of entries) {
      if (entries.size <= limit) return;
      if (entry.users > 0) continue;
      entries.delete(key);
      (await entry.opening).dispose();
    }
  }

  return {
    async with(key, open, use) {
      let entry = entries.get(key);
      if (!entry) {
        // Room first: two large models need not both fit beside a third.
        await shrink(most - 1);
        entry = entries.get(key) ?? { opening: open(), users: 0 };
      }
      entries.delete(key);
      entries.set(key, entry);
      entry.users++;
      try {
        let thing: T;
        try {
          thing = await entry.opening;
        } catch (error) {
          if (entries.get(key) === entry) entries.delete(key);
          throw error;
        }
        return await use(thing);
      } finally {
        entry.users--;
        await shrink(most);
      }
    },
    closeIdle: () => shrink(0),
  };
}
