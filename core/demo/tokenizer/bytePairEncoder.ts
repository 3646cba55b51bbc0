import { preTokenise } from './byteLevel.ts';

/** The parts of a `tokenizer.json` that encoding reads. */
export interface TokenizerFile {
  model: { vocab: Record<string, number>; merges: readonly (readonly [string, string])[] };
}

/**
 * A plain encoder of the demo's tokenizer: what the training script measures with and the tests compare to. It adds
 * no special tokens and knows none.
 * @returns a function from a text to its ids
 */
export function bytePairEncoder(file: TokenizerFile): (text: string) => number[] {
  const rank = new Map(file.model.merges.map(([left, right], i) => [`${left} ${right}`, i]));
  const cache = new Map<string, number[]>();
  const encodeWord = (word: string): number[] => {
    const parts = [...word];
    for (;;) {
      let best = -1;
      let bestRank = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        const at = rank.get(`${parts[i]} ${parts[i + 1]}`);
        if (at !== undefined && at < bestRank) [best, bestRank] = [i, at];
      }
      if (best < 0) return parts.map((part) => file.model.vocab[part] as number);
      parts.splice(best, 2, `${parts[best]}${parts[best + 1]}`);
    }
  };
  return (text) =>
    preTokenise(text).flatMap((word) => {
      let ids = cache.get(word);
      if (ids === undefined) cache.set(word, (ids = encodeWord(word)));
      return ids;
    });
}
