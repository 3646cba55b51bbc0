import * as z from 'zod';

/** A token as tokenizer_config.json spells it: a string, or an object with its content. */
const tokenSchema = z
  .union([z.string(), z.object({ content: z.string() })])
  .nullish()
  .transform((token) => (token == null ? null : typeof token === 'string' ? token : token.content));

/** What Caravan reads of tokenizer_config.json; other keys are left alone. */
export const tokenizerConfigSchema = z.object({
  bos_token: tokenSchema,
  eos_token: tokenSchema,
  pad_token: tokenSchema,
  add_bos_token: z.boolean().nullish(),
  chat_template: z
    .union([z.string(), z.array(z.object({ name: z.string(), template: z.string() }))])
    .nullish()
    .transform((template) => {
      if (template == null || typeof template === 'string') return template ?? null;
      return (template.find((t) => t.name === 'default') ?? template[0])?.template ?? null;
    }),
});
export type TokenizerConfig = z.infer<typeof tokenizerConfigSchema>;

/** Special tokens of tokenizer.json. */
export const addedTokensSchema = z.object({
  added_tokens: z
    .array(z.object({ id: z.number(), content: z.string(), special: z.boolean().default(false) }))
    .default([]),
});
