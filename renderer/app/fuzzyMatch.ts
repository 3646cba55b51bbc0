export interface Match {
  score: number;
  /** Indices of the matched characters in the text. */
  at: number[];
}

/**
 * Whether the letters of `query` occur in `text` in order; better the earlier, the more together, and at the beginnings
 * of words. Words of the query are matched apart.
 */
export function fuzzyMatch(query: string, text: string): Match | null {
  const haystack = text.toLowerCase();
  const at: number[] = [];
  let score = 0;
  for (const word of query.toLowerCase().split(/\s+/).filter(Boolean)) {
    const whole = haystack.indexOf(word);
    if (whole >= 0) {
      const starts = whole === 0 || !isLetter(haystack[whole - 1]!);
      score += 10 * word.length + (starts ? 15 : 0) - whole * 0.1;
      for (let i = 0; i < word.length; i++) at.push(whole + i);
      continue;
    }
    let from = 0;
    let previous = -2;
    for (const letter of word) {
      const found = haystack.indexOf(letter, from);
      if (found < 0) return null;
      const starts = found === 0 || !isLetter(haystack[found - 1]!);
      score += (found === previous + 1 ? 5 : 1) + (starts ? 4 : 0);
      at.push(found);
      previous = found;
      from = found + 1;
    }
  }
  return { score, at };
}

function isLetter(character: string): boolean {
  return /[\p{L}\p{N}]/u.test(character);
}
