import { createInterface } from 'node:readline/promises';
import { randomUUID } from 'node:crypto';
import type { Client } from '../../shared/contract/client.ts';
import { describePace, type Answer } from '../../shared/chat/chat.ts';
import type { Message } from '../../shared/dataset/source.ts';
import { choice, list, number, required, text } from '../options.ts';
import { resolveReference } from '../references.ts';
import type { Verb, VerbContext } from '../Verb.ts';

export const verb: Verb = {
  summary: 'Talk to a model: one prompt, or a conversation on the terminal.',
  usage: 'chat --model M [--prompt P] [--system S] [--temperature 0] [--max-tokens N] [--seed N] [--stop S]',
  help: `--model M        a name in the library, run:RUN (its last checkpoint), a folder or a GGUF file
--prompt P       answer this and end; without it a conversation starts (Ctrl-D ends it)
--system S       system prompt
--template T     auto (what the model was trained with), camelidae, model
--temperature T  0 is greedy (default 0.7); --top-k, --top-p, --min-p, --repetition-penalty
--max-tokens N   default 256
--stop S         ends the answer; may be given several times
--base-dtype D   f32, bf16 or nf4 for the base weights

With --json: {text, ids, stop_reason, tokens_per_second}; ids hold the stop token, text does not.`,
  options: {
    model: { type: 'string' },
    prompt: { type: 'string' },
    system: { type: 'string' },
    template: { type: 'string' },
    temperature: { type: 'string' },
    'max-tokens': { type: 'string' },
    'top-k': { type: 'string' },
    'top-p': { type: 'string' },
    'min-p': { type: 'string' },
    'repetition-penalty': { type: 'string' },
    seed: { type: 'string' },
    stop: { type: 'string', multiple: true },
    'base-dtype': { type: 'string' },
  },
  async run(context) {
    const { options, output, connect } = context;
    const settings = readSettings(context);
    const client = await connect();
    const system = text(options, 'system');
    const messages: Message[] = system === undefined ? [] : [{ role: 'system', content: system }];
    const prompt = text(options, 'prompt');
    if (prompt !== undefined) {
      messages.push({ role: 'user', content: prompt });
      const answer = await ask(client, context, settings, messages);
      output.document({
        text: answer.text,
        ids: answer.ids,
        stop_reason: answer.stopReason,
        tokens_per_second: answer.tokensPerSecond,
      });
      return 0;
    }
    // What is wrong with the model is said before the first question is typed.
    await client.call('inspectModel', { model: settings.model });
    const terminal = createInterface({ input: process.stdin, output: process.stderr });
    terminal.setPrompt('> ');
    terminal.prompt();
    for await (const line of terminal) {
      if (line.trim() !== '') {
        messages.push({ role: 'user', content: line });
        const answer = await ask(client, context, settings, messages);
        messages.push({ role: 'assistant', content: answer.text });
        output.document({
          text: answer.text,
          ids: answer.ids,
          stop_reason: answer.stopReason,
          tokens_per_second: answer.tokensPerSecond,
        });
      }
      terminal.prompt();
    }
    return 0;
  },
};

type Settings = ReturnType<typeof readSettings>;

function readSettings({ options, cwd }: VerbContext) {
  const optional = {
    topK: number(options, 'top-k'),
    topP: number(options, 'top-p'),
    minP: number(options, 'min-p'),
    repetitionPenalty: number(options, 'repetition-penalty'),
  };
  const baseDtype = choice(options, 'base-dtype', ['f32', 'bf16', 'nf4'] as const);
  return {
    model: resolveReference(cwd, required(options, 'model')),
    template: choice(options, 'template', ['auto', 'camelidae', 'model'] as const) ?? 'auto',
    sampling: {
      temperature: number(options, 'temperature') ?? 0.7,
      maxTokens: number(options, 'max-tokens') ?? 256,
      seed: number(options, 'seed') ?? 0,
      stop: list(options, 'stop'),
      ...(Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined)) as Partial<
        Record<keyof typeof optional, number>
      >),
    },
    ...(baseDtype && { baseDtype }),
  };
}

async function ask(
  client: Client,
  context: VerbContext,
  settings: Settings,
  messages: Message[],
): Promise<Answer> {
  const answerId = randomUUID();
  const unsubscribe = client.on('answerToken', (token) => {
    if (token.answerId === answerId) context.output.stream(token.text);
  });
  const cancel = () => void client.call('cancelAnswer', { answerId }).catch(() => undefined);
  context.interrupted.addEventListener('abort', cancel);
  try {
    const answer = await client.call('generateAnswer', { answerId, messages, ...settings });
    context.output.line();
    context.output.line(
      `  [${[answer.stopReason, ...describePace(answer.ids.length, answer.tokensPerSecond)].join(', ')}]`,
    );
    return answer;
  } finally {
    unsubscribe();
    context.interrupted.removeEventListener('abort', cancel);
  }
}
