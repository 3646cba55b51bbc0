/**
 * Code that a model did not put between fences. Markdown would join its lines to a paragraph and drop their leading
 * spaces, which in Python are the program.
 */

const listItem = /^\s*(?:[-*+]|\d{1,9}[.)])\s/;
const quoteOrTable = /^\s*[>|]/;

const codeSigns = [
  /[;{}]$/,
  /^[)\]}]/,
  /^(?:def|class|for|while|if|elif|with|except|function|fn|func)\b.*[:{(]$/,
  /^(?:else|try|finally|do)\s*[:{]$/,
  /^(?:return|raise|yield|throw|await|import|const|let|var)\s+\S+/,
  /^from\s+[\w.]+\s+import\b/,
  /^(?:@\w|#include\b|\/\/|#\s)/,
  /^[\w.]+(?:\[[^\]]*\])*\s*(?:[-+*/%|&^]|\/\/|\*\*)?=[^=]/,
  /^[\w.]+\(.*\)$/,
];

function looksLikeCode(line: string): boolean {
  const text = line.trim();
  return codeSigns.some((sign) => sign.test(text));
}

export function isIndented(line: string): boolean {
  return /^(?: {2,}|\t)\s*\S/.test(line);
}

/** Whether `line` goes deeper than `before`, as the body of a statement does and the line of a poem does not. */
function opensCode(before: string, line: string): boolean {
  return (
    isIndented(line) && (/[:{([]$/.test(before.trimEnd()) || looksLikeCode(before) || looksLikeCode(line))
  );
}

/** @returns [first, behind the last] of each run of code in a paragraph's lines */
function codeRuns(lines: readonly string[]): [number, number][] {
  const runs: [number, number][] = [];
  if (lines.some((line) => listItem.test(line) || quoteOrTable.test(line))) return runs;
  for (let at = 1; at < lines.length; at++) {
    if (!opensCode(lines[at - 1]!, lines[at]!)) continue;
    const floor = runs.at(-1)?.[1] ?? 0;
    let first = at - 1;
    while (first > floor && looksLikeCode(lines[first - 1]!)) first--;
    let end = at + 1;
    while (end < lines.length && belongs(lines[end]!)) end++;
    runs.push([first, end]);
    at = end;
  }
  return runs;
}

function belongs(line: string): boolean {
  return line.trim() === '' || isIndented(line) || looksLikeCode(line);
}

/** Whether what comes next may still be part of the code that these lines end in. */
export function endsInCode(lines: readonly string[]): boolean {
  return codeRuns(lines).at(-1)?.[1] === lines.length;
}

/** The same lines with each run of code between fences. */
export function fenceCode(lines: readonly string[]): string[] {
  const fenced: string[] = [];
  let done = 0;
  for (const [first, end] of codeRuns(lines)) {
    fenced.push(...lines.slice(done, first), '```', ...lines.slice(first, end), '```');
    done = end;
  }
  return [...fenced, ...lines.slice(done)];
}
