import { resolve } from 'node:path';
import * as z from 'zod';
import { formatShare } from '../../shared/format.ts';
import { readJsonl } from '../jsonlFile.ts';
import { choice, required } from '../options.ts';
import { resolveReference } from '../references.ts';
import type { Verb } from '../Verb.ts';

export const verb: Verb = {
  summary: 'Which experts tokens choose, by layer and source.',
  usage: 'route --model M --jsonl F [--base-dtype f32|bf16|nf4]',
  help: `--model M  a crafted model: run:RUN, or a folder with its checkpoint
--jsonl F  lines {"text": …, "source": …}; without a source all rows count as one`,
  options: { model: { type: 'string' }, jsonl: { type: 'string' }, 'base-dtype': { type: 'string' } },
  async run({ options, output, cwd, connect }) {
    const model = resolveReference(cwd, required(options, 'model'));
    const baseDtype = choice(options, 'base-dtype', ['f32', 'bf16', 'nf4'] as const);
    const rows = await readJsonl(
      resolve(cwd, required(options, 'jsonl')),
      z.object({ text: z.string(), source: z.string().optional() }),
    );
    const client = await connect();
    const result = await client.call('route', {
      model,
      rows: rows.map(({ text, source }) => ({ text, ...(source !== undefined && { source }) })),
      ...(baseDtype && { baseDtype }),
    });
    output.document(result);
    for (const source of result.sources) {
      output.line(`\n${source.source} (${source.tokens} tokens): share of first choices, a row per layer`);
      for (let layer = 0; layer < result.layers; layer++)
        output.line(
          `  ${String(layer).padStart(3)}  ` +
            source.first
              .slice(layer * result.experts, (layer + 1) * result.experts)
              .map((share) => formatShare(share).padStart(7))
              .join(' '),
        );
    }
    if (result.mutualInformation !== null)
      output.line(`\ninformation between experts and source: ${result.mutualInformation.toFixed(4)} nats`);
    return 0;
  },
};
