/**
 * Tokens a second of models beside each other, the engine's and ONNX Runtime's in turn, so that other work on the machine hits
 * all alike: `npm run bench -- decoding FOLDER[=f32|bf16|nf4]...`. A folder is an ONNX export, or a model for the engine.
 */
import { join } from 'node:path';
import { loadavg } from 'node:os';
import { loadAddon } from '../../core/engine/loadAddon.ts';
import { isOnnxFolder } from '../../core/onnx/format/isOnnxFolder.ts';
import { openOnnxModel, type ChatModel } from '../../core/onnx/session/openOnnxModel.ts';
import { loadRuntime } from '../../core/onnx/session/runtime.ts';

const rounds = 3;
const tokens = 100;
const text =
  'Once upon a time a camel crossed the desert with its caravan, and told the others what it had seen: ';

const addon = loadAddon();

async function open(dir: string, dtype: string | undefined): Promise<ChatModel> {
  if (await isOnnxFolder(dir))
    return openOnnxModel(dir, {
      runtime: await loadRuntime(),
      providers: [{ name: 'cpu', missing: null }],
      addon,
    });
  const baseDtype = dtype === 'f32' || dtype === 'nf4' ? dtype : 'bf16';
  return addon.openModel({
    modelDir: dir,
    baseDtype,
    computeDtype: baseDtype === 'f32' ? 'f32' : 'bf16',
  });
}

const measured = await Promise.all(
  process.argv.slice(2).map(async (name) => {
    const [dir = '', dtype] = name.split('=');
    const tokenizer = await addon.openTokenizer(join(dir, 'tokenizer.json'));
    return { name, model: await open(dir, dtype), tokenizer, gaps: [] as number[], prompts: [] as number[] };
  }),
);
for (let round = 0; round < rounds; round++)
  for (const { name, model, tokenizer, gaps, prompts } of measured) {
    const promptIds = tokenizer.encode(text.repeat(8));
    let last: number | null = null;
    const { promptMs } = await model.generate(
      { generationId: name, promptIds, maxTokens: tokens, temperature: 0, stopIds: [], tokenizer },
      () => {
        const now = performance.now();
        if (last !== null) gaps.push(now - last);
        last = now;
      },
    );
    prompts.push((promptIds.length / promptMs) * 1000);
  }
process.stdout.write(`load ${loadavg()[0]!.toFixed(1)}; decoding: the median token, and the fastest fifth\n`);
for (const { name, gaps, prompts } of measured) {
  gaps.sort((a, b) => a - b);
  const perSecond = (share: number) => (1000 / gaps[Math.floor(gaps.length * share)]!).toFixed(1);
  process.stdout.write(
    `${name}: ${perSecond(0.5)} and ${perSecond(0.2)} tokens/s; a prompt ${Math.max(...prompts).toFixed(0)} tokens/s\n`,
  );
}
process.exit(0);
