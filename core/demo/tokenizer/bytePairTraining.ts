/**
 * Byte-pair training (Sennrich et al., arXiv 1508.07909): join the most frequent pair of neighbouring tokens, again
 * and again. Equal counts are decided by the pair's ids, the lower left one first and then the lower right one, as
 * Hugging Face's trainer does; so the result depends on nothing but the counts.
 */

/** Learned merges, and the tokens by id: the base alphabet first, then one for each merge. */
export interface BytePairVocabulary {
  tokens: readonly string[];
  merges: readonly (readonly [string, string])[];
}

/** Ids of two neighbours as one number; ids stay below 2^20. */
function pairKey(left: number, right: number): number {
  return left * 0x100000 + right;
}

/**
 * @param wordCounts - how often each word (in the base alphabet) occurs
 * @param alphabet - the base tokens, one character each, in the order of their ids
 * @param size - tokens wanted, the alphabet included; fewer come out where no pair occurs twice any more
 */
export function trainBytePairs(
  wordCounts: ReadonlyMap<string, number>,
  alphabet: readonly string[],
  size: number,
): BytePairVocabulary {
  const tokens = alphabet.slice();
  const merges: [string, string][] = [];
  const idOf = new Map(alphabet.map((token, id) => [token, id]));
  const words: { ids: number[]; count: number }[] = [];
  for (const [word, count] of wordCounts) {
    const ids = [...word].map((character) => {
      const id = idOf.get(character);
      if (id === undefined)
        throw new RangeError(`the word "${word}" holds "${character}", which the alphabet lacks`);
      return id;
    });
    if (ids.length > 1) words.push({ ids, count });
  }

  const pairCounts = new Map<number, number>();
  const wordsOfPair = new Map<number, Set<number>>();
  const count = (word: number, key: number, by: number): void => {
    pairCounts.set(key, (pairCounts.get(key) ?? 0) + by);
    let holders = wordsOfPair.get(key);
    if (holders === undefined) wordsOfPair.set(key, (holders = new Set()));
    holders.add(word);
  };
  words.forEach((word, at) => {
    for (let i = 0; i + 1 < word.ids.length; i++)
      count(at, pairKey(word.ids[i]!, word.ids[i + 1]!), word.count);
  });

  while (tokens.length < size) {
    let best = -1;
    let bestCount = 1;
    for (const [key, times] of pairCounts) {
      if (times > bestCount || (times === bestCount && best >= 0 && key < best)) {
        best = key;
        bestCount = times;
      }
    }
    if (best < 0) break;
    const left = Math.floor(best / 0x100000);
    const right = best % 0x100000;
    const joined = `${tokens[left]}${tokens[right]}`;
    // Two ways to the same text share one id, as in Hugging Face's trainer.
    let id = idOf.get(joined);
    if (id === undefined) {
      id = tokens.length;
      tokens.push(joined);
      idOf.set(joined, id);
    }
    merges.push([tokens[left]!, tokens[right]!]);
    const holders = [...(wordsOfPair.get(best) ?? [])];
    for (const at of holders) {
      const word = words[at]!;
      for (let i = 0; i + 1 < word.ids.length; i++) {
        const key = pairKey(word.ids[i]!, word.ids[i + 1]!);
        pairCounts.set(key, pairCounts.get(key)! - word.count);
      }
      word.ids = mergePair(word.ids, left, right, id);
      for (let i = 0; i + 1 < word.ids.length; i++) {
        count(at, pairKey(word.ids[i]!, word.ids[i + 1]!), word.count);
      }
    }
    pairCounts.delete(best);
    wordsOfPair.delete(best);
  }
  return { tokens, merges };
}

/** `ids` with every left-right neighbourhood joined, from the left. */
function mergePair(ids: readonly number[], left: number, right: number, id: number): number[] {
  const out: number[] = [];
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] === left && ids[i + 1] === right) {
      out.push(id);
      i++;
    } else {
      out.push(ids[i]!);
    }
  }
  return out;
}
