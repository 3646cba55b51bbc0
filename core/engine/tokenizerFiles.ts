/** Tokenizer and template of an export: the base's own files, with the template that the run was trained with. */
import { copyFile, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TemplateTokens } from '../shared/dataset/template.ts';
import { isGgufPath } from '../shared/model/modelPath.ts';
import type { RequestParams } from './protocol.ts';

/** renderCamelidae as a Jinja template, for conversations whose turns alternate. */
const camelidaeTemplate =
  "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{% if message['content'] %}" +
  "{{ '### System:\\n' + message['content'] + '\\n' }}{% endif %}{% elif message['role'] == 'user' %}" +
  "{{ '### Human:\\n' + message['content'] + '\\n' }}{% elif message['role'] == 'assistant' %}" +
  "{{ '### Assistant:\\n' + message['content'] + eos_token }}{% endif %}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}";

/** Jinja; null where a run was trained with a template of its model that is gone. */
export function exportedTemplate(
  template: 'camelidae' | 'model',
  { bos, chatTemplate }: TemplateTokens,
): string | null {
  if (template === 'model') return chatTemplate;
  // Where there is no BOS some programs leave bos_token undefined, and others put the word None.
  return bos === null ? camelidaeTemplate.replace('{{ bos_token }}', '') : camelidaeTemplate;
}

const copied = [
  'tokenizer.json',
  'tokenizer.model',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'generation_config.json',
];

/** @returns what was written; nothing for a base that is a GGUF file, whose tokenizer has no files */
export async function writeTokenizerFiles(
  { model, template, tokens }: RequestParams<'export'>,
  dir: string,
): Promise<{ name: string; bytes: number }[]> {
  if (isGgufPath(model.modelDir)) return [];
  const written: string[] = [];
  for (const name of copied) {
    try {
      await copyFile(join(model.modelDir, name), join(dir, name));
      written.push(name);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  const config = await readFile(join(model.modelDir, 'tokenizer_config.json'), 'utf8').then(
    (text) => JSON.parse(text) as Record<string, unknown>,
    () => ({
      tokenizer_class: 'PreTrainedTokenizerFast',
      ...(tokens.bos !== null && { bos_token: tokens.bos }),
      ...(tokens.eos !== null && { eos_token: tokens.eos }),
    }),
  );
  const chatTemplate = exportedTemplate(template, tokens);
  const name = 'tokenizer_config.json';
  await writeFile(
    join(dir, name),
    `${JSON.stringify({ ...config, ...(chatTemplate !== null && { chat_template: chatTemplate }) }, null, 2)}\n`,
  );
  written.push(name);
  return Promise.all(
    written.map(async (file) => ({ name: file, bytes: (await stat(join(dir, file))).size })),
  );
}
