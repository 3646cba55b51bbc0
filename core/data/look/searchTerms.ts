/** Words of a search: `"a phrase"` in quotes, `-word` for rows without it; all must hold, in any case. */
export interface SearchTerm {
  text: string;
  absent: boolean;
}

export function searchTerms(search: string): SearchTerm[] {
  const terms: SearchTerm[] = [];
  for (const [, minus, phrase, word] of search.matchAll(/(-?)(?:"([^"]*)"?|([^\s"]+))/g)) {
    const text = (phrase ?? word ?? '').trim().toLowerCase();
    if (text !== '') terms.push({ text, absent: minus === '-' });
  }
  return terms;
}
