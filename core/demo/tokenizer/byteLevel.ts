/**
 * The pre-tokenisation of the demo's tokenizer, as Hugging Face's `Digits(individual_digits)` followed by
 * `ByteLevel(add_prefix_space=false, use_regex=true)` do it: every digit alone, then GPT-2's words, each written with
 * one printable character for each byte.
 */

// JavaScript's own blank class differs from Unicode's (U+0085 is missing, U+FEFF too many), so the property is named.
const digit = /\p{N}/u;
const gpt2Words =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** GPT-2's byte-to-character table: printable Latin-1 bytes stand for themselves, the others for U+0100 onwards. */
export const byteCharacters: readonly string[] = (() => {
  const printable = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
})();

const encoder = new TextEncoder();

/** The words of a text, in order, in the alphabet of `byteCharacters`. */
export function preTokenise(text: string): string[] {
  const out: string[] = [];
  let piece = '';
  const flush = (): void => {
    for (const word of piece.match(gpt2Words) ?? []) out.push(asByteCharacters(word));
    piece = '';
  };
  for (const character of text) {
    if (!digit.test(character)) {
      piece += character;
      continue;
    }
    flush();
    out.push(asByteCharacters(character));
  }
  flush();
  return out;
}

function asByteCharacters(word: string): string {
  let out = '';
  for (const byte of encoder.encode(word)) out += byteCharacters[byte] as string;
  return out;
}
