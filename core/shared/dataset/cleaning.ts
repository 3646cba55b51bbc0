/** Cleaning steps of a recipe: each leaves out rows and names them. Sources never change, so taking a step out undoes it. */
import * as z from 'zod';

/** Whose words a step looks at: all of one role's in a row, joined by line ends, or the whole conversation. */
export const textParts = ['prompt', 'answer', 'system', 'any'] as const;
export type TextPart = (typeof textParts)[number];

export const languages = ['en', 'de', 'fr', 'es', 'it', 'pt', 'nl', 'ru', 'zh', 'ja', 'ko', 'ar'] as const;
export type Language = (typeof languages)[number];

/** Openings by which an answer declines. Case does not count, nor the form of an apostrophe. */
export const refusalPhrases = [
  'as an ai language model',
  'as an ai model',
  'as an ai assistant',
  'as an artificial intelligence',
  "i'm sorry, but i can't",
  "i'm sorry, but i cannot",
  "i'm sorry, but as an ai",
  "i'm sorry, i can't",
  "i'm sorry, i cannot",
  'i am sorry, but i cannot',
  "i apologize, but i can't",
  'i apologize, but i cannot',
  "i can't assist with that",
  'i cannot assist with that',
  "i can't help with that",
  'i cannot help with that',
  "i can't fulfill",
  'i cannot fulfill',
  "i'm unable to",
  'i am unable to provide',
  "i don't have personal opinions",
  "i don't have access to real-time",
  'it is not appropriate to',
];

/** What generators leave in answers that says nothing. */
export const boilerplatePhrases = [
  'i hope this helps',
  'let me know if you have any other questions',
  'let me know if you need any further',
  'feel free to ask if you',
  'if you have any other questions, feel free',
  'is there anything else i can help',
  'my knowledge cutoff',
  'my training data only goes up to',
  'openai',
  'chatgpt',
];

const off = {
  /** Kept in the recipe, without effect. */
  off: z.boolean().optional().describe('Keep the step in the recipe without effect.'),
};
const of = z
  .enum(textParts)
  .default('answer')
  .describe("Whose words it looks at: the user's, the answers', the system prompt, or all.");
const bounds = {
  min: z.number().int().nonnegative().optional(),
  max: z.number().int().positive().optional(),
};
const phrases = (what: readonly string[]) =>
  z
    .array(z.string().min(1))
    .min(1)
    .default([...what])
    .describe('The whole list: what is written here takes the place of the default.');

export const cleanStepSchema = z
  .discriminatedUnion('step', [
    z
      .object({
        step: z.literal('length').describe('Leave out what is too short or too long.'),
        of,
        unit: z.enum(['characters', 'words', 'turns']).default('characters'),
        ...bounds,
        ...off,
      })
      .strict(),
    z
      .object({
        step: z.literal('tokens').describe("Bounds in tokens of the recipe's model, template included."),
        of: z.enum(['row', 'answer']).default('row').describe('The whole row, or what is trained of it.'),
        ...bounds,
        ...off,
      })
      .strict(),
    z
      .object({
        step: z.literal('regex').describe('Leave out what a regular expression (RE2) finds, or all else.'),
        of,
        pattern: z.string().min(1),
        ignoreCase: z.boolean().default(false),
        drop: z.enum(['matching', 'others']).default('matching'),
        ...off,
      })
      .strict(),
    z
      .object({
        step: z.literal('sql').describe('Keep the rows for which a condition of DuckDB holds.'),
        /** Columns: row, label, file, line, hash, system, prompt, answer, conversation, turns, messages. */
        where: z
          .string()
          .min(1)
          .describe(
            'A condition over row, label, file, line, hash, system, prompt, answer, conversation, turns and messages.',
          ),
        ...off,
      })
      .strict(),
    z
      .object({
        step: z.literal('refusals').describe('Leave out answers that decline.'),
        phrases: phrases(refusalPhrases),
        within: z
          .number()
          .int()
          .positive()
          .default(200)
          .describe('Only in so many first characters of an answer.'),
        ...off,
      })
      .strict(),
    z
      .object({
        step: z.literal('boilerplate').describe('Leave out answers that hold one of these phrases.'),
        phrases: phrases(boilerplatePhrases),
        ...off,
      })
      .strict(),
    z
      .object({
        step: z
          .literal('language')
          .describe('Keep languages, told from scripts and stop words: rough, and no more than that.'),
        of: z.enum(textParts).default('any'),
        keep: z.array(z.enum(languages)).min(1),
        unknown: z
          .enum(['keep', 'drop'])
          .default('keep')
          .describe('Rows too short, or mostly code or figures, to tell.'),
        ...off,
      })
      .strict(),
    z
      .object({
        step: z
          .literal('roles')
          .describe('Mend conversations that import set aside for the order of their turns.'),
        ...off,
      })
      .strict(),
  ])
  .refine(
    (step) =>
      (step.step !== 'length' && step.step !== 'tokens') || step.min !== undefined || step.max !== undefined,
    { message: 'give `min`, `max` or both' },
  );
export type CleanStep = z.infer<typeof cleanStepSchema>;

/** A step with its place in the recipe, by which rejected rows name it: `clean[0]`, `sources[1].clean[0]`. */
export interface PlacedStep {
  place: string;
  step: CleanStep;
}

/** The steps that act on one source, in order: the recipe's, then its own. */
export function stepsOf(
  recipe: { clean?: readonly CleanStep[] | undefined },
  source: { clean?: readonly CleanStep[] | undefined },
  index: number,
): PlacedStep[] {
  return [
    ...(recipe.clean ?? []).map((step, at) => ({ place: `clean[${at}]`, step })),
    ...(source.clean ?? []).map((step, at) => ({ place: `sources[${index}].clean[${at}]`, step })),
  ].filter(({ step }) => step.off !== true);
}

/** A step in a few words, for lists and for the reason of a rejected row. */
export function describeStep(step: CleanStep): string {
  const range = (unit: string, { min, max }: { min?: number | undefined; max?: number | undefined }) =>
    min === undefined
      ? `at most ${max} ${unit}`
      : max === undefined
        ? `at least ${min} ${unit}`
        : `${min} to ${max} ${unit}`;
  switch (step.step) {
    case 'length':
      return step.unit === 'turns' ? range('turns', step) : `${step.of}: ${range(step.unit, step)}`;
    case 'tokens':
      return `${step.of}: ${range('tokens', step)}`;
    case 'regex':
      return `${step.of} ${step.drop === 'matching' ? 'without' : 'with'} /${step.pattern}/${step.ignoreCase ? 'i' : ''}`;
    case 'sql':
      return `rows where ${step.where}`;
    case 'refusals':
      return `no refusals (${step.phrases.length} phrases)`;
    case 'boilerplate':
      return `no boilerplate (${step.phrases.length} phrases)`;
    case 'language':
      return `language ${step.keep.join(', ')}`;
    case 'roles':
      return 'order of turns mended';
  }
}
