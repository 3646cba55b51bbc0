import { describe, expect, test } from 'vitest';
import { createSSRApp, h } from 'vue';
import { renderToString } from 'vue/server-renderer';
import { highlight } from './highlight.ts';
import MarkdownText from './MarkdownText.vue';
import { splitBlocks } from './splitBlocks.ts';

async function render(text: string): Promise<string> {
  const html = await renderToString(createSSRApp({ render: () => h(MarkdownText, { text }) }));
  return html.replaceAll(/<!--.*?-->/g, '');
}

describe('splitBlocks', () => {
  test('while an answer grows, all blocks but the last stay what they were', () => {
    const whole = 'One.\n\n```py\na = 1\n\nb = 2\n```\nTwo\n\n- x\n- y\n';
    let before: string[] = [];
    for (let length = 1; length <= whole.length; length++) {
      const closed = splitBlocks(whole.slice(0, length), false)
        .filter((block) => block.closed)
        .map((block) => block.text);
      expect(closed.slice(0, before.length)).toEqual(before);
      before = closed;
    }
    expect(splitBlocks(whole, true).map((block) => block.text)).toEqual([
      'One.',
      '```py\na = 1\n\nb = 2\n```',
      'Two',
      '- x\n- y',
    ]);
  });
  test('a fence is closed by its own mark alone, and not before its line ends', () => {
    expect(splitBlocks('````\n```\nx', false)).toEqual([{ text: '````\n```\nx', closed: false }]);
    expect(splitBlocks('```\nx\n```', false).at(-1)!.closed).toBe(false);
    expect(splitBlocks('```\nx\n```\n', false)[0]!.closed).toBe(true);
  });
});

describe('model output as elements', () => {
  test('markup stays text, images are named and not fetched, links leave safely', async () => {
    const html = await render(
      '<img src=x onerror=alert(1)> **bold** ![pixel](https://tracker.example/p.png) [good](https://example.org) [bad](javascript:alert(1))',
    );
    expect(html).not.toContain('<img');
    expect(html).toContain('&lt;img');
    expect(html).toContain('<strong>bold</strong>');
    expect(html).toContain('image not loaded: pixel');
    expect(html).toContain('rel="noopener noreferrer nofollow"');
    expect(html).not.toContain('href="javascript');
  });
  test('lists, tables and code', async () => {
    const html = await render('3. a\n4. b\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n```js\nlet a = `<b>`;\n```');
    expect(html).toContain('<ol start="3">');
    expect(html).toContain('<td>2</td>');
    expect(html).toContain('let a = `&lt;b&gt;`;');
  });
});

test('highlight colours known languages by our tokens and leaves others alone', async () => {
  const lines = await highlight('def f():\n    return 1', 'py');
  expect(lines).toHaveLength(2);
  expect(lines![0]!.map(({ text }) => text).join('')).toBe('def f():');
  expect(lines![0]!.some(({ color }) => color === 'var(--shiki-token-keyword)')).toBe(true);
  expect(await highlight('x', 'klingon')).toBeNull();
});
