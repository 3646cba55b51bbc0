import { h, type VNodeChild } from 'vue';

/** The words of a search that a text must hold, longest first. */
export function searchedWords(search: string): string[] {
  return [...search.matchAll(/(-?)(?:"([^"]*)"?|([^\s"]+))/g)]
    .flatMap(([, minus, phrase, word]) => (minus === '-' ? [] : [(phrase ?? word ?? '').trim()]))
    .filter((word) => word !== '')
    .sort((a, b) => b.length - a.length);
}

/** A text with what was searched marked in it. */
export function highlight(text: string, search: string): VNodeChild {
  const words = searchedWords(search);
  if (words.length === 0) return text;
  const pattern = new RegExp(
    `(${words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|')})`,
    'giu',
  );
  return text.split(pattern).map((part, index) => (index % 2 === 1 ? h('mark', part) : part));
}
