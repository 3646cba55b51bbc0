export interface MarkdownBlock {
  text: string;
  /** No later text changes it. */
  closed: boolean;
}

/**
 * Cuts Markdown at blank lines outside code fences, so that a growing answer re-parses its last block alone.
 * @param ended whether no more text will come
 */
export function splitBlocks(text: string, ended: boolean): MarkdownBlock[] {
  const blocks: MarkdownBlock[] = [];
  let lines: string[] = [];
  let fence: string | null = null;
  const close = () => {
    if (lines.some((line) => line.trim() !== '')) blocks.push({ text: lines.join('\n'), closed: true });
    lines = [];
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
      }
    } else if (mark) {
      close();
      fence = mark[1]!;
      lines.push(line);
    } else if (line.trim() === '' && whole) {
      close();
    } else {
      lines.push(line);
    }
  }
  if (lines.some((line) => line.trim() !== '')) blocks.push({ text: lines.join('\n'), closed: ended });
  return blocks;
}
