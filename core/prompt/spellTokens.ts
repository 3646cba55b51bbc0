import type { AddonTokenizer } from '../engine/AddonTypes.ts';

export interface TokenRun {
  /** [from, to) of the ids. */
  from: number;
  to: number;
  text: string;
  special: boolean;
}

/**
 * The text that each token stands for. Bytes of one character may be parted over tokens, which are then one run.
 * @param mayJoin whether the token at a place may belong to the run that begins at another
 */
export function spellTokens(
  tokenizer: AddonTokenizer,
  ids: Int32Array,
  mayJoin: (place: number, first: number) => boolean = () => true,
): TokenRun[] {
  const runs: TokenRun[] = [];
  for (let from = 0; from < ids.length;) {
    const before = runs.at(-1);
    const special = tokenizer.isSpecial(ids[from]!);
    let to = from + 1;
    let text = special
      ? (tokenizer.idToToken(ids[from]!) ?? '')
      : textAfter(tokenizer, before, ids, from, to);
    while (!special && text.includes('\uFFFD') && to < ids.length && to - from < 8) {
      if (tokenizer.isSpecial(ids[to]!) || !mayJoin(to, from)) break;
      to++;
      const more = textAfter(tokenizer, before, ids, from, to);
      if (!more.includes('\uFFFD')) text = more;
    }
    if (text.includes('\uFFFD')) to = from + 1;
    runs.push({ from, to, text, special });
    from = to;
  }
  return runs;
}

/** A decoder may drop a leading space at the very beginning: what came before keeps it. */
function textAfter(
  tokenizer: AddonTokenizer,
  before: TokenRun | undefined,
  ids: Int32Array,
  from: number,
  to: number,
): string {
  const own = ids.subarray(from, to);
  if (!before || before.special) return tokenizer.decode(own);
  const context = tokenizer.decode(ids.subarray(before.from, before.to));
  const both = tokenizer.decode(ids.subarray(before.from, to));
  return both.startsWith(context) ? both.slice(context.length) : tokenizer.decode(own);
}
