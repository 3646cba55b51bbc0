/** Where two texts say the same, for showing them side by side. */

export type Span = [from: number, to: number];

interface Word {
  text: string;
  from: number;
  to: number;
}

/** As the addon cuts words: runs of letters, digits and marks, an ideograph or kana alone; case does not count. */
function wordsOf(text: string): Word[] {
  return [
    ...text.matchAll(
      /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]|(?:(?![\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}])[\p{L}\p{N}\p{M}])+/gu,
    ),
  ].map((match) => ({
    text: match[0].normalize('NFC').toLowerCase(),
    from: match.index,
    to: match.index + match[0].length,
  }));
}

export function countWords(text: string): number {
  return wordsOf(text).length;
}

/** The stretches of at least `ngram` words (all of `b`, where that has fewer) that both texts hold. */
export function commonStretches(a: string, b: string, ngram: number): { a: Span[]; b: Span[] } {
  const [left, right] = [wordsOf(a), wordsOf(b)];
  const n = Math.min(ngram, right.length);
  if (n === 0) return { a: [], b: [] };
  const gram = (words: readonly Word[], at: number) =>
    words
      .slice(at, at + n)
      .map(({ text }) => text)
      .join(' ');
  const known = new Map<string, number[]>();
  for (let at = 0; at + n <= right.length; at++) {
    const key = gram(right, at);
    known.set(key, [...(known.get(key) ?? []), at]);
  }
  const inLeft = new Uint8Array(left.length);
  const inRight = new Uint8Array(right.length);
  for (let at = 0; at + n <= left.length; at++)
    for (const other of known.get(gram(left, at)) ?? []) {
      inLeft.fill(1, at, at + n);
      inRight.fill(1, other, other + n);
    }
  return { a: spans(left, inLeft), b: spans(right, inRight) };
}

function spans(words: readonly Word[], marked: Uint8Array): Span[] {
  const found: Span[] = [];
  for (const [at, { from, to }] of words.entries()) {
    if (marked[at] === 0) continue;
    if (at > 0 && marked[at - 1] === 1) found.at(-1)![1] = to;
    else found.push([from, to]);
  }
  return found;
}

/** Cuts a long text down to what lies around its first span, which moves with it. */
export function excerpt(text: string, marks: Span[], limit: number): { text: string; spans: Span[] } {
  if (text.length <= limit) return { text, spans: marks };
  const first = marks[0]?.[0] ?? 0;
  let from = Math.max(0, Math.min(first - 200, text.length - limit));
  let to = from + limit;
  // No half of a surrogate pair.
  if (from > 0 && /[\udc00-\udfff]/.test(text[from]!)) from++;
  if (to < text.length && /[\ud800-\udbff]/.test(text[to - 1]!)) to--;
  const before = from > 0 ? '…' : '';
  return {
    text: `${before}${text.slice(from, to)}${to < text.length ? '…' : ''}`,
    spans: marks
      .filter(([begin, end]) => end > from && begin < to)
      .map(([begin, end]): Span => [
        Math.max(begin, from) - from + before.length,
        Math.min(end, to) - from + before.length,
      ]),
  };
}
