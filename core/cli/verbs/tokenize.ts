import { resolve } from 'node:path';
import * as z from 'zod';
import { chunksOf } from '../chunks.ts';
import { readJsonl } from '../jsonlFile.ts';
import { required } from '../options.ts';
import { resolveReference } from '../references.ts';
import type { Verb } from '../Verb.ts';

const textsPerCall = 1000;

export const verb: Verb = {
  summary: 'Token ids of texts: the text alone, no BOS, EOS or template.',
  usage: 'tokenize --model M --jsonl F [--json]',
  help: `--model M  a name in the library, a folder that holds at least tokenizer.json, or a GGUF file
--jsonl F  lines {"text": …}; prints one line {"ids": […]} for each, in order`,
  options: { model: { type: 'string' }, jsonl: { type: 'string' } },
  async run({ options, output, cwd, connect }) {
    const model = resolveReference(cwd, required(options, 'model'));
    const rows = await readJsonl(resolve(cwd, required(options, 'jsonl')), z.object({ text: z.string() }));
    const client = await connect();
    const texts = rows.map((row) => row.text);
    for (const chunk of chunksOf(texts, textsPerCall, (text) => text.length)) {
      const { ids } = await client.call('tokenize', { model, texts: chunk });
      for (const line of ids) {
        output.document({ ids: line });
        output.line(line.join(' '));
      }
    }
    return 0;
  },
};
