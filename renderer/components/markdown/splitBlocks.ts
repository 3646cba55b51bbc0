import { endsInCode, fenceCode, isIndented } from './codeLines.ts';

export interface MarkdownBlock {
  text: string;
  /** No later text changes it. */
  closed: boolean;
}

/**
 * Cuts Markdown at blank lines outside code, so that a growing answer re-parses its last block alone; code without fences
 * gets them.
 * @param ended whether no more text will come
 */
export function splitBlocks(text: string, ended: boolean): MarkdownBlock[] {
  const blocks: MarkdownBlock[] = [];
  let lines: string[] = [];
  let fence: string | null = null;
  /** Whether `lines` began with a fence. */
  let fenced = false;
  const close = () => {
    keep(true);
    lines = [];
  };
  const keep = (closed: boolean) => {
    while (lines.at(-1)?.trim() === '') lines.pop();
    if (lines.length === 0) return;
    blocks.push({ text: (fenced ? lines : fenceCode(lines)).join('\n'), closed });
  };
  const all = text.split('\n');
  for (const [index, line] of all.entries()) {
    const mark = /^ {0,3}(`{3,}|~{3,})(.*)$/.exec(line);
    // The last line may still grow: it closes nothing while text is coming.
    const whole = ended || index < all.length - 1;
    if (fence !== null) {
      lines.push(line);
      if (mark && whole && mark[1]!.startsWith(fence) && mark[2]!.trim() === '') {
        fence = null;
        close();
        fenced = false;
      }
    } else if (mark) {
      close();
      fence = mark[1]!;
      fenced = true;
      lines.push(line);
    } else if (line.trim() === '' && whole) {
      // The body of a function has blank lines too: the next line tells whether it goes on.
      if (endsInCode(lines)) lines.push('');
      else close();
    } else {
      if (lines.at(-1) === '' && line.trim() !== '' && !isIndented(line)) close();
      lines.push(line);
    }
  }
  keep(ended);
  return blocks;
}
