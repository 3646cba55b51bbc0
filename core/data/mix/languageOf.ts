import type { Language } from '../../shared/dataset/cleaning.ts';

/** The commonest small words of each language in Latin letters; one that several share tells least and stands in each. */
const stopWords: Partial<Record<Language, string>> = {
  en: 'the of and to in is that it for was with as be by on are this you from have not which can what how',
  de: 'der die das und ist nicht ein eine zu den mit von auf für sich dem des im wie auch werden sind als oder',
  fr: 'le la les des est une dans et pour que qui pas sur avec vous plus par sont ce du aux cette être ou',
  es: 'el la los las que una por con para es del se no como más pero son este está su sobre también cuando',
  it: 'il lo gli che di una per non con sono della nel alla come più questo anche dei delle essere ha si',
  pt: 'os as que uma não para com por mais como dos das em ser são está você pela também seu ao foi',
  nl: 'de het een van en is niet dat op te zijn voor met die aan ook als bij wordt om naar deze maar',
};
const byWord = new Map<string, Language[]>();
for (const [language, words] of Object.entries(stopWords) as [Language, string][])
  for (const word of words.split(' ')) byWord.set(word, [...(byWord.get(word) ?? []), language]);

/** So much of a text is looked at. */
const looked = 2000;
/** Fewer letters say nothing. */
const fewest = 20;

/**
 * The language of a text by its script, or for Latin letters by stop words; null where neither tells: short texts, code,
 * figures, and languages that are not in the list. A rough measure: it keeps a mix in one language, and cannot tell
 * Norwegian from Danish, nor one sentence of French inside an English answer.
 */
export function languageOf(text: string): Language | null {
  const head = text.slice(0, looked);
  const counts = { han: 0, kana: 0, hangul: 0, cyrillic: 0, arabic: 0, latin: 0 };
  for (const char of head) {
    const c = char.codePointAt(0)!;
    if ((c >= 0x41 && c <= 0x5a) || (c >= 0x61 && c <= 0x7a) || (c >= 0xc0 && c <= 0x24f)) counts.latin++;
    else if (c >= 0x400 && c <= 0x4ff) counts.cyrillic++;
    else if (c >= 0x600 && c <= 0x6ff) counts.arabic++;
    else if (c >= 0x3040 && c <= 0x30ff) counts.kana++;
    else if (c >= 0xac00 && c <= 0xd7af) counts.hangul++;
    else if ((c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff)) counts.han++;
  }
  // An ideograph says about as much as three letters.
  const eastern = (counts.han + counts.kana + counts.hangul) * 3;
  const letters = eastern + counts.cyrillic + counts.arabic + counts.latin;
  if (letters < fewest) return null;
  if (eastern * 2 > letters) {
    if (counts.hangul > counts.han + counts.kana) return 'ko';
    // Japanese is never without kana for long.
    return counts.kana * 10 > counts.han ? 'ja' : 'zh';
  }
  // Ukrainian, Bulgarian and Persian go under the names of their scripts' largest languages.
  if (counts.cyrillic * 2 > letters) return 'ru';
  if (counts.arabic * 2 > letters) return 'ar';
  return byStopWords(head);
}

function byStopWords(text: string): Language | null {
  const words = text.toLowerCase().match(/\p{L}+/gu) ?? [];
  const hits = new Map<Language, number>();
  for (const word of words)
    for (const language of byWord.get(word) ?? []) hits.set(language, (hits.get(language) ?? 0) + 1);
  const [best, second] = [...hits].sort(([, a], [, b]) => b - a);
  // Prose has a stop word in four or five words; code and lists of names have few.
  if (!best || best[1] < 3 || best[1] * 12 < words.length) return null;
  return second && second[1] === best[1] ? null : best[0];
}
