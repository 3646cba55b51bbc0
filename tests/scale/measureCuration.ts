/**
 * Builds IDAE-720K from full-size stand-ins and tells what each stage took: `npm run bench -- curation [SCALE [DIR]]`.
 * DIR keeps the stand-ins for the next time. Needs a tokenizer: CARAVAN_TEST_DATA's Llama-2, else the demo's.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { createDataProcess, type DataProcess } from '../../core/data/client.ts';
import type { DataProgress } from '../../core/data/protocol.ts';
import { recipeSchema } from '../../core/shared/dataset/recipe.ts';
import { fullScaleFiles, writeFullScale, type FullScaleSource } from './fullScale.ts';

const scale = Number(process.argv[2] ?? 1);
const dir = process.argv[3] ?? join(tmpdir(), `caravan-scale-${scale}`);
const threads = Number(process.env['THREADS'] ?? cpus().length);
const sources: Record<string, FullScaleSource[]> = {
  slimorca: ['slimorca'],
  oss: ['ossInstruct'],
  evol: ['evolInstruct'],
  metamath: ['metaMath'],
};

interface Stage {
  stage: string;
  seconds: number;
  rows: number | null;
}

/** Peak resident memory of a process, where the system tells. */
function peakBytes(pid: number | null): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

async function timed<T>(
  stage: string,
  work: () => Promise<T>,
  rows: (result: T) => number | null,
  stages: Stage[],
): Promise<T> {
  const began = performance.now();
  const result = await work();
  stages.push({ stage, seconds: (performance.now() - began) / 1000, rows: rows(result) });
  return result;
}

/** Splits a request by the stages that it reports. */
function stageClock() {
  const stages = new Map<string, { ms: number; done: number }>();
  let last = { stage: 'starting', at: performance.now() };
  return {
    see({ stage, done }: DataProgress) {
      const now = performance.now();
      const before = stages.get(last.stage) ?? { ms: 0, done: 0 };
      stages.set(last.stage, { ...before, ms: before.ms + now - last.at });
      stages.set(stage, { ...(stages.get(stage) ?? { ms: 0 }), done });
      last = { stage, at: now };
    },
    end(into: Stage[]) {
      this.see({ stage: 'end', done: 0, total: null, unit: '' });
      for (const [stage, { ms, done }] of stages)
        if (stage !== 'end' && ms > 50)
          into.push({ stage: `  ${stage}`, seconds: ms / 1000, rows: done > 100 ? done : null });
    },
  };
}

async function openTokenizer(data: DataProcess) {
  const given = process.env['CARAVAN_TEST_DATA'];
  const packed = given && join(given, 'models/tokenizers/llama-2.tokenizer.json.gz');
  if (!packed || !existsSync(packed)) {
    const base = join(import.meta.dirname, '../../demo/base');
    const { tokens } = await data.request('readTokenizer', { dir: base });
    return { path: join(base, 'tokenizer.json'), modelName: 'demo-base', tokens };
  }
  const path = join(dir, 'llama-2.tokenizer.json');
  writeFileSync(path, gunzipSync(readFileSync(packed)));
  return {
    path,
    modelName: 'llama-2',
    tokens: { bos: '<s>', eos: '</s>', specials: [], chatTemplate: null },
  };
}

async function importAll(data: DataProcess, stages: Stage[]) {
  const imported: { dir: string; contentHash: string }[] = [];
  for (const [name, parts] of Object.entries(sources)) {
    const outDir = join(dir, 'imported', name);
    rmSync(outDir, { recursive: true, force: true });
    const files = parts.map((part) => join(dir, fullScaleFiles[part]));
    const { contentHash } = await timed(
      `import ${name}`,
      () => data.request('importSource', { files, format: 'auto', outDir, memoryLimit: '512MB' }),
      ({ rowsIn }) => rowsIn,
      stages,
    );
    imported.push({ dir: outDir, contentHash });
  }
  return imported;
}

mkdirSync(join(dir, 'imported'), { recursive: true });
for (const part of Object.values(sources).flat())
  if (!existsSync(join(dir, fullScaleFiles[part]))) {
    process.stderr.write(`writing ${fullScaleFiles[part]}\n`);
    await writeFullScale(part, dir, { scale });
  }
const benchmarks = ['gsm8k-test.jsonl', 'HumanEval.jsonl.gz'].flatMap((name) => {
  const file = process.env['CARAVAN_TEST_DATA'] && join(process.env['CARAVAN_TEST_DATA'], 'data', name);
  return file && existsSync(file) ? [file] : [];
});
const count = (rows: number) => Math.round(rows * scale);
const recipe = recipeSchema.parse({
  name: 'idae-720k',
  seed: 1,
  dedup: 'near',
  whenShort: 'topUp',
  model: 'llama-2',
  sources: [
    { name: 'slimorca', source: 'slimorca', count: count(360_000), clean: [{ step: 'refusals' }] },
    { name: 'oss', source: 'oss', count: count(72_000) },
    { name: 'evol', source: 'evol', count: count(108_000) },
    { name: 'metamath', source: 'metamath', count: count(180_000), stratify: { by: 'label' } },
  ],
  clean: [{ step: 'length', min: 2 }],
  ...(benchmarks.length > 0 && { decontaminate: { benchmarks: benchmarks.map((path) => ({ path })) } }),
});
const data = createDataProcess();
const tokenizer = await openTokenizer(data);
const stages: Stage[] = [];
const began = performance.now();
const imported = await importAll(data, stages);
const importPeak = peakBytes(data.pid);
const clock = stageClock();
const mix = await timed(
  'build',
  () =>
    data.request(
      'buildMix',
      {
        recipe,
        sources: imported,
        benchmarks: benchmarks.map((file) => [file]),
        tokenizer: { ...tokenizer, hash: '0'.repeat(64) },
        outDir: join(dir, 'mix'),
        memoryLimit: '1GB',
        threads,
      },
      { onProgress: (progress) => clock.see(progress) },
    ),
  ({ rows }) => rows,
  stages,
);
clock.end(stages);
const seconds = (performance.now() - began) / 1000;
for (const { stage, seconds: took, rows } of stages)
  process.stdout.write(
    `${stage.padEnd(34)}${took.toFixed(1).padStart(8)} s${
      rows === null
        ? ''
        : `${Math.round(rows / took)
            .toLocaleString('en')
            .padStart(12)} rows/s`
    }\n`,
  );
process.stdout.write(
  `${'all'.padEnd(34)}${seconds.toFixed(1).padStart(8)} s, ${mix.rows} rows, ${mix.tokens} tokens (${Math.round(mix.tokens! / seconds)} a second), ` +
    `${threads} threads, peak ${(importPeak / 2 ** 20).toFixed(0)} MiB after imports, ${(peakBytes(data.pid) / 2 ** 20).toFixed(0)} MiB at the end\n` +
    `${JSON.stringify(mix.sources)}\ncontent ${mix.contentHash}\n`,
);
await data.close();
