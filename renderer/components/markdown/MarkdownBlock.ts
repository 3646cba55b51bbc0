/**
 * One block of Markdown as elements. Model output never becomes markup by itself: the parser knows no HTML, every
 * element below is named here, links leave the window by a click alone, and images are not fetched.
 */
import MarkdownIt from 'markdown-it';
import { defineComponent, h, type PropType, type VNodeChild } from 'vue';
import CodeBlock from './CodeBlock.vue';

type Token = ReturnType<InstanceType<typeof MarkdownIt>['parse']>[number];

const parser = new MarkdownIt({ html: false, linkify: false, breaks: true });
const elements = new Set([
  'p',
  'ul',
  'ol',
  'li',
  'blockquote',
  'table',
  'thead',
  'tbody',
  'tr',
  'th',
  'td',
  'hr',
  'br',
  'strong',
  'em',
  's',
]);

export default defineComponent({
  name: 'MarkdownBlock',
  props: {
    text: { type: String, required: true },
    closed: { type: Boolean as PropType<boolean>, required: true },
  },
  setup: (props) => () => renderTokens(parser.parse(props.text, {}), props.closed),
});

function renderTokens(tokens: readonly Token[], closed: boolean): VNodeChild[] {
  const root: VNodeChild[] = [];
  const stack: { token: Token; children: VNodeChild[] }[] = [];
  for (const token of tokens) {
    const into = stack.at(-1)?.children ?? root;
    if (token.nesting === 1) stack.push({ token, children: [] });
    else if (token.nesting === -1) {
      const opened = stack.pop();
      if (opened) (stack.at(-1)?.children ?? root).push(renderElement(opened.token, opened.children));
    } else into.push(renderLeaf(token, closed));
  }
  return root;
}

function renderElement(token: Token, children: VNodeChild[]): VNodeChild {
  if (token.hidden) return children; // the paragraph of a tight list
  if (token.type === 'link_open') {
    const href = token.attrGet('href') ?? '';
    return h('a', { href, title: href, target: '_blank', rel: 'noopener noreferrer nofollow' }, children);
  }
  if (token.type === 'heading_open') return h('h3', children);
  if (token.type === 'ordered_list_open')
    return h('ol', { start: token.attrGet('start') ?? undefined }, children);
  return elements.has(token.tag) ? h(token.tag, children) : children;
}

function renderLeaf(token: Token, closed: boolean): VNodeChild {
  switch (token.type) {
    case 'inline':
      return renderTokens(token.children ?? [], closed);
    case 'fence':
    case 'code_block':
      return h(CodeBlock, {
        code: token.content.replace(/\n$/, ''),
        language: token.info.trim().split(/\s+/)[0] ?? '',
        closed,
      });
    case 'code_inline':
      return h('code', token.content);
    case 'image':
      return h('span', { class: 'blocked-image', title: token.attrGet('src') ?? '' }, [
        `image not loaded${token.content === '' ? '' : `: ${token.content}`}`,
      ]);
    case 'softbreak':
    case 'hardbreak':
      return h('br');
    case 'hr':
      return h('hr');
    default:
      return token.content;
  }
}
