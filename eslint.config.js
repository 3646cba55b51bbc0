import pluginVue from 'eslint-plugin-vue';
import { fileURLToPath } from 'node:url';
import tseslint from 'typescript-eslint';
import { zoneRules } from './build/lint/zoneRules.mjs';

const root = fileURLToPath(new URL('.', import.meta.url));
const typed = ['{core,electron,renderer,tests}/**/*.{ts,vue}'];

export default tseslint.config(
  { ignores: ['out/', 'node_modules/', 'native/', 'coverage/', 'build/vite.config.ts', 'vitest.config.ts'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  ...tseslint.configs.recommended,
  ...pluginVue.configs['flat/recommended'],
  {
    files: ['**/*.vue'],
    languageOptions: { parserOptions: { parser: tseslint.parser, extraFileExtensions: ['.vue'] } },
    rules: {
      // The formatter's business.
      'vue/html-self-closing': 'off',
      'vue/max-attributes-per-line': 'off',
      'vue/singleline-html-element-content-newline': 'off',
      'vue/html-indent': 'off',
      'vue/html-closing-bracket-newline': 'off',
      'vue/multiline-html-element-content-newline': 'off',
      'vue/multi-word-component-names': 'off',
      // Content-Security-Policy or not: text of users and models never becomes markup unseen.
      'vue/no-v-html': 'error',
    },
  },
  {
    files: typed,
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: root, extraFileExtensions: ['.vue'] },
    },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': [
        'error',
        { checksVoidReturn: { arguments: false, attributes: false } },
      ],
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
    },
  },
  {
    rules: {
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'separate-type-imports' }],
      '@typescript-eslint/no-unused-vars': [
        'error',
        { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrorsIgnorePattern: '^_' },
      ],
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-implicit-coercion': ['error', { boolean: false }],
      'no-restricted-globals': [
        'error',
        { name: 'name', message: 'Probably a local of that name is missing.' },
      ],
    },
  },
  ...zoneRules(root),
);
