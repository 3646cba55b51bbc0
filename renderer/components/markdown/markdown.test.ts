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

describe('code without fences', () => {
  const texts = (text: string) => splitBlocks(text, true).map((block) => block.text);
  test('keeps its leading spaces, blank lines inside it, and what is said around it apart', () => {
    expect(
      texts(
        'Here it is:\nimport math\ndef f(x):\n    if x:\n        return math.pi\n\n    return x\nprint(f(2))\nThat is all.\n\nBye.',
      ),
    ).toEqual([
      'Here it is:\n```\nimport math\ndef f(x):\n    if x:\n        return math.pi\n\n    return x\nprint(f(2))\n```\nThat is all.',
      'Bye.',
    ]);
    expect(texts('for (;;) {\n  go();\n}')).toEqual(['```\nfor (;;) {\n  go();\n}\n```']);
    expect(texts('class A:\n\tx = 1\n\n\ndef g():\n\tpass')).toEqual([
      '```\nclass A:\n\tx = 1\n```',
      '```\ndef g():\n\tpass\n```',
    ]);
  });
  test('is no list, quote, table, fence or poem', () => {
    for (const text of [
      'Steps:\n- one\n  - two\n    more of two',
      '1. if x:\n   return y',
      '> quoted\n>   deeper',
      'Roses are red,\n  Violets are blue,',
      '```py\ndef f():\n    return 1\n```',
    ])
      expect(texts(text)).toEqual([text]);
  });
  test('while it grows, what is closed stays', () => {
    const whole = 'So:\ndef f():\n    a = 1\n\n    return a\n\nDone.\nx';
    let before: string[] = [];
    for (let length = 1; length <= whole.length; length++) {
      const closed = splitBlocks(whole.slice(0, length), false)
        .filter((block) => block.closed)
        .map((block) => block.text);
      expect(closed.slice(0, before.length)).toEqual(before);
      before = closed;
    }
    expect(before).toEqual(['So:\n```\ndef f():\n    a = 1\n\n    return a\n```']);
  });
  test('is drawn as code, to the space', async () => {
    expect(await render('def f(x):\n    return x')).toContain('def f(x):\n    return x');
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
