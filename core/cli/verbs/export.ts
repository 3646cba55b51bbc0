import { basename, resolve } from 'node:path';
import type { Client } from '../../shared/contract/client.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatBytes, formatCount, formatMetric } from '../../shared/format.ts';
import {
  exportFormats,
  exportLayouts,
  exportTypes,
  mergeBases,
  type ExportRecord,
  type LogitComparisonRecord,
} from '../../shared/model/export.ts';
import { followJob } from '../followJob.ts';
import { choice, number, required } from '../options.ts';
import type { Output } from '../Output.ts';
import { resolveReference } from '../references.ts';
import type { Verb, VerbContext } from '../Verb.ts';

export const verb: Verb = {
  summary: 'Write what a run trained for other programs, and prove it equal; list and show exports.',
  usage:
    'export RUN|MODEL --format FORMAT --out DIR [--type TYPE] [--merge-into trained|original] [--shard-gib N] | export formats RUN|MODEL | export list | export show DIR',
  help: `RUN           a run's name or id, its folder, or one of its checkpoints; for onnx also any MODEL as it came
--format      peft        LoRA for PEFT (method lora)
              adapter     Caravan's own: LoRA, adapters and routers, small (lora, pesc)
              merged      a dense Hugging Face folder (lora, full)
              camelidae   as the published Camelidae models (pesc on Llama)
              qwen2idae   as the published Qwen2idae (pesc on Qwen2)
              sparsetral  as the published sparsetral (pesc on Llama or Mistral)
              mixtral     transformers' Mixtral (upcycle)
              gguf        one file for llama.cpp and its kin (lora, full)
              onnx        a graph for ONNX Runtime, with chat through it (all but upcycle)
--type        bf16 (default), f16 or f32; of gguf f16 (default), f32, q8_0 or q4_0; of onnx f16 (default), f32 or int4
--merge-into  trained     the base as the run kept it: dequantised where that is NF4 (default)
              original    the base as its files have it; the report says what that loses
--shard-gib   safetensors files are cut before they grow beyond this (default 5)

formats RUN   every format with its size, or why this run cannot have it and what to use instead

The folder is written beside its place and moved there when it is whole; export.json in it is the report. An export that
differs from the run by more than its limit is kept, says so, and ends with exit code 2.`,
  options: {
    format: { type: 'string' },
    out: { type: 'string' },
    type: { type: 'string' },
    'merge-into': { type: 'string' },
    'shard-gib': { type: 'string' },
  },
  async run(context) {
    const [first, second, extra] = context.words;
    if (first === undefined) throw new CaravanError('bad_option', 'a run is missing');
    if (first === 'show' && second !== undefined && extra === undefined) return show(context, second);
    if (first === 'formats' && second !== undefined && extra === undefined) return offer(context, second);
    if (second !== undefined) throw new CaravanError('bad_option', `did not expect '${second}'`);
    return first === 'list' ? list(context) : exportRun(context, first);
  },
};

async function exportRun(context: VerbContext, reference: string): Promise<number> {
  const { options, output, cwd, connect, interrupted } = context;
  required(options, 'format');
  const layout = choice(options, 'format', exportLayouts)!;
  const outDir = resolve(cwd, required(options, 'out'));
  const type = choice(options, 'type', exportTypes);
  const mergeInto = choice(options, 'merge-into', mergeBases);
  const shardGib = number(options, 'shard-gib');
  const client = await connect();
  const run = await runReference(client, cwd, reference);
  const job = await client.call('exportRun', {
    run,
    layout,
    outDir,
    ...(type !== undefined && { type }),
    ...(mergeInto !== undefined && { mergeInto }),
    ...(shardGib !== undefined && { shardBytes: Math.max(1, Math.round(shardGib * 2 ** 30)) }),
  });
  const done = await followJob(client, job, output, interrupted);
  const made = await client.call('getExport', { id: done.subjectId ?? '' });
  output.document(made);
  describe(output, made, outDir);
  return made.parity.passed ? 0 : 2;
}

async function offer({ options, output, cwd, connect }: VerbContext, reference: string): Promise<number> {
  const client = await connect();
  const type = choice(options, 'type', exportTypes);
  const mergeInto = choice(options, 'merge-into', mergeBases);
  const offered = await client.call('offerExports', {
    run: await runReference(client, cwd, reference),
    ...(type !== undefined && { type }),
    ...(mergeInto !== undefined && { mergeInto }),
  });
  output.document(offered);
  const { run, base } = offered;
  output.line(run ? `${run.name}, step ${run.step} (${run.method})` : `${base.name}, as it came`);
  for (const { layout, type: own, bytes, refusal } of offered.formats)
    output.line(
      `  ${layout.padEnd(11)} ${
        refusal
          ? `✗ ${refusal.message}${refusal.mend ? `. ${refusal.mend}` : ''}`
          : `${formatBytes(bytes ?? 0).padStart(9)}  ${own ?? 'as trained'}: ${exportFormats[layout].purpose}`
      }`,
    );
  return 0;
}

/** A run's name comes before a folder of the same name: it is runs that are exported. */
function runReference(client: Client, cwd: string, reference: string): Promise<string> {
  return client.call('findRun', { ref: reference }).then(
    ({ id }) => `run:${id}`,
    () => resolveReference(cwd, reference),
  );
}

async function list({ output, connect }: VerbContext): Promise<number> {
  const made = await (await connect()).call('listExports', {});
  output.document(made);
  if (made.length === 0)
    output.line('No exports yet: caravan export RUN --format FORMAT --out DIR makes one.');
  else
    output.table(
      ['run', 'step', 'format', 'type', 'parity', 'folder'],
      made.map((each) => [
        each.run?.name ?? basename(each.base.name),
        each.run?.step ?? 'as it came',
        each.layout,
        each.type ?? 'as trained',
        each.parity.passed ? 'equal' : 'DIFFERS',
        each.dir,
      ]),
    );
  return 0;
}

async function show({ output, cwd, connect }: VerbContext, word: string): Promise<number> {
  const dir = resolve(cwd, word);
  const client: Client = await connect();
  const record = await client.call('readExport', { dir });
  output.document(record);
  describe(output, record, dir);
  return 0;
}

/** Of a run; a model that came so is itself what is compared with. */
const references = {
  trained: 'the run as trained',
  original_base: 'the run on its base as stored',
  dequantised: 'the very weights that the file must hold',
} as const;
const itself = 'the model as it came';

function describe(output: Output, record: ExportRecord, dir: string): void {
  const { run, parity, files } = record;
  const { tensors, prompts } = parity;
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  const differing = tensors.wrong.length;
  const kinds = [
    [tensors.copied, 'copied'],
    [tensors.merged, 'merged'],
    [tensors.quantised, 'quantised'],
  ] as const;
  const rows: [string, string][] = [
    ['folder', dir],
    ['from', run ? `${run.name}, step ${run.step} (${run.method})` : `${record.base.name}, as it came`],
    [
      'format',
      [record.layout, record.type, record.mergeInto && `merged into the ${record.mergeInto} base`]
        .filter(Boolean)
        .join(', '),
    ],
    ['files', `${files.length}, ${formatBytes(bytes)}`],
    [
      'tensors',
      `${tensors.tensors} (${kinds
        .filter(([count]) => count > 0)
        .map(([count, kind]) => `${count} ${kind}`)
        .join(
          ', ',
        )}), ${formatCount(tensors.elements)} numbers compared, ${differing === 0 ? 'all as they must be' : `${differing} WRONG`}; ` +
        `largest change ${formatMetric(tensors.maxDifference)} in ${tensors.maxTensor}`,
    ],
    [
      'logits',
      `against ${run || parity.reference !== 'trained' ? references[parity.reference] : itself}: ${describeLogits(parity.logits)}`,
    ],
    ...(parity.loss
      ? [
          ['loss', `against ${run ? references.trained : itself}: ${describeLogits(parity.loss)}`] as [
            string,
            string,
          ],
        ]
      : []),
    [
      'prompts',
      prompts.checked === 0
        ? 'the base brings no template to check'
        : prompts.different === 0
          ? `${prompts.checked} turned into the same tokens by the export's own template`
          : `${prompts.different} of ${prompts.checked} become OTHER TOKENS by the export's own template`,
    ],
    ['must hold', parity.limit],
  ];
  for (const [label, value] of rows) output.line(`  ${label.padEnd(10)} ${value}`);
  if (parity.unusedExperts.length > 0)
    output.line(
      `  no token of the prompts reached: ${parity.unusedExperts
        .map(({ layer, expert }) => `layer ${layer} expert ${expert}`)
        .join(', ')} (their numbers were compared)`,
    );
  for (const note of record.notes) output.line(`  ${note}`);
  if (!parity.passed && differing === 0 && record.type === 'bf16')
    output.line(
      "  bf16 rounds this run's numbers by more than that: --type f16 rounds eight times finer, f32 not at all",
    );
  for (const problem of tensors.wrong) output.line(`  wrong: ${problem}`);
  output.line(parity.passed ? '✓ equal to what was trained' : '✗ NOT equal to what was trained');
}

function describeLogits(found: LogitComparisonRecord): string {
  return (
    `largest difference ${formatMetric(found.maxDifference)}, mean ${formatMetric(found.meanDifference)}, ` +
    `KL ${formatMetric(found.kl)} nats a token, same choice ${found.sameChoice} of ${found.tokens}` +
    (found.decidedOtherwise > 0 ? `, ${found.decidedOtherwise} of ${found.decided} clear ones OTHERWISE` : '')
  );
}
