/** Code colours, loaded when the first block of code is closed: Shiki with the JavaScript engine, a grammar at a time. */
import type { HighlighterCore, LanguageRegistration } from 'shiki/core';

export interface CodeToken {
  text: string;
  /** A CSS colour of our tokens; undefined: ink. */
  color: string | undefined;
}

type Grammar = () => Promise<{ default: LanguageRegistration[] }>;
const python: Grammar = () => import('shiki/langs/python.mjs');
const typescript: Grammar = () => import('shiki/langs/typescript.mjs');
const javascript: Grammar = () => import('shiki/langs/javascript.mjs');
const bash: Grammar = () => import('shiki/langs/bash.mjs');
const cpp: Grammar = () => import('shiki/langs/cpp.mjs');
const yaml: Grammar = () => import('shiki/langs/yaml.mjs');
const grammars: Record<string, Grammar> = {
  python,
  py: python,
  typescript,
  ts: typescript,
  javascript,
  js: javascript,
  bash,
  sh: bash,
  shell: bash,
  cpp,
  'c++': cpp,
  yaml,
  yml: yaml,
  c: () => import('shiki/langs/c.mjs'),
  json: () => import('shiki/langs/json.mjs'),
  java: () => import('shiki/langs/java.mjs'),
  rust: () => import('shiki/langs/rust.mjs'),
  go: () => import('shiki/langs/go.mjs'),
  sql: () => import('shiki/langs/sql.mjs'),
  html: () => import('shiki/langs/html.mjs'),
  css: () => import('shiki/langs/css.mjs'),
};

let highlighter: Promise<HighlighterCore> | undefined;

async function createHighlighter(): Promise<HighlighterCore> {
  const [core, { createJavaScriptRegexEngine }] = await Promise.all([
    import('shiki/core'),
    import('shiki/engine/javascript'),
  ]);
  return core.createHighlighterCore({
    engine: createJavaScriptRegexEngine({ forgiving: true }),
    themes: [core.createCssVariablesTheme({ name: 'tokens', variablePrefix: '--shiki-', fontStyle: false })],
    langs: [],
  });
}

/** @returns the lines' tokens; null where the language is not known */
export async function highlight(code: string, language: string): Promise<CodeToken[][] | null> {
  const grammar = grammars[language.toLowerCase()];
  if (!grammar) return null;
  const [shiki, { default: registration }] = await Promise.all([
    (highlighter ??= createHighlighter()),
    grammar(),
  ]);
  await shiki.loadLanguage(registration);
  const { name } = registration.at(-1)!;
  return shiki
    .codeToTokensBase(code, { lang: name, theme: 'tokens' })
    .map((line) => line.map(({ content, color }) => ({ text: content, color })));
}
