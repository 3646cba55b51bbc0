import { resolve } from 'node:path';
import * as z from 'zod';
import { chunksOf } from '../chunks.ts';
import { readJsonl } from '../jsonlFile.ts';
import { choice, required } from '../options.ts';
import { resolveReference } from '../references.ts';
import type { Verb } from '../Verb.ts';

/** Few, so that results stream. */
const rowsPerCall = 64;

export const verb: Verb = {
  summary: 'Log-probabilities of continuations given their contexts.',
  usage: 'score --model M --jsonl F [--base-dtype f32|bf16|nf4]',
  help: `--jsonl F  lines {"context": …, "continuation": …}
Prints one line {"logprob", "token_logprobs", "ids", "greedy"} for each, in order. Context and continuation are tokenised
together with the tokenizer's own BOS default; the continuation's ids are what follows the context's.`,
  options: { model: { type: 'string' }, jsonl: { type: 'string' }, 'base-dtype': { type: 'string' } },
  async run({ options, output, cwd, connect, interrupted }) {
    const model = resolveReference(cwd, required(options, 'model'));
    const baseDtype = choice(options, 'base-dtype', ['f32', 'bf16', 'nf4'] as const);
    const row = z.object({ context: z.string(), continuation: z.string() });
    const rows = await readJsonl(resolve(cwd, required(options, 'jsonl')), row);
    const client = await connect();
    let done = 0;
    for (const chunk of chunksOf(rows, rowsPerCall, (r) => r.context.length + r.continuation.length)) {
      if (interrupted.aborted) break;
      const results = await client.call('score', {
        model,
        rows: chunk,
        ...(baseDtype && { baseDtype }),
      });
      for (const result of results) {
        output.document({
          logprob: result.logprob,
          token_logprobs: result.tokenLogprobs,
          ids: result.ids,
          greedy: result.greedy,
        });
        output.line(`${result.logprob.toFixed(4)}${result.greedy ? '  greedy' : ''}`);
      }
      done += chunk.length;
      output.progress('score', {
        done,
        total: rows.length,
        unit: 'rows',
        rate: null,
        etaMs: null,
      });
    }
    output.endProgress();
    return interrupted.aborted ? 4 : 0;
  },
};
