/** The main job through the command line, on a model small enough for every machine. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Mix } from '../core/shared/dataset/recipe.ts';
import type { RejectedRow, Source } from '../core/shared/dataset/source.ts';
import type { Model } from '../core/shared/model/model.ts';
import type { Plan, Run, Evaluation } from '../core/shared/run/run.ts';
import { makeCaravanHome, type CaravanHome } from './support/runCaravan.ts';
import { needs, testData } from './support/skip.ts';
import { writeTinyModel } from './support/tinyModel.ts';

const addon = needs('addon', 'the job through the command line');

let caravan: CaravanHome;

beforeAll(() => {
  caravan = makeCaravanHome();
});

afterAll(() => caravan.endHost());

/** Question and answer rows that a model can learn. */
function rows(count: number): string {
  return Array.from({ length: count }, (_, index) => {
    const [a, b] = [index % 7, index % 5];
    return `${JSON.stringify({ question: `What is ${a} plus ${b}?`, answer: `${a} plus ${b} is ${a + b}, item ${index}.` })}\n`;
  }).join('');
}

function errorOf(stdout: string) {
  return (JSON.parse(stdout) as { error: { code: string; message: string; place?: unknown; mend?: string } })
    .error;
}

describe('without a model', () => {
  test('help lists the verbs; a wrong verb or option is bad input', async () => {
    const help = await caravan.run('help');
    expect(help.code).toBe(0);
    for (const verb of ['doctor', 'import', 'mix', 'train', 'runs', 'chat', 'serve'])
      expect(help.stdout).toContain(verb);
    expect(await caravan.run('launch')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("no verb 'launch'"),
    });
    expect(await caravan.run('runs', '--lsit')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--lsit'),
    });
    expect(await caravan.run('train')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('caravan train --help says how.'),
    });
    expect((await caravan.run('--version')).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect(caravan.hostPid(), 'none of these needs a host').toBeNull();
  });

  test('an import keeps every row', async () => {
    caravan.write('sums.jsonl', rows(120));
    const source = await caravan.json<Source>('import', 'sums.jsonl');
    expect(source).toMatchObject({
      name: 'sums',
      format: 'question-answer',
      rowsIn: 120,
      rows: 120,
      rejected: 0,
    });
  });

  test('own columns are mapped', async () => {
    caravan.write(
      'own.jsonl',
      `${JSON.stringify({ q: 'What is a dromedary?', a: 'A camel.', c: 'Be brief.' })}\n`,
    );
    const source = await caravan.json<Source>(
      'import',
      'own.jsonl',
      '--map',
      'prompt=q',
      '--map',
      'answer=a',
      '--map',
      'system=c',
    );
    expect(source).toMatchObject({ format: 'mapping', rows: 1 });
  });

  test('what cannot be used is named with file, line and field, the rest is kept, and the exit code says so', async () => {
    caravan.write('some.jsonl', `${rows(2)}{bad\n{"question":"e"}\n${rows(1)}`);
    const { code, stdout, stderr } = await caravan.run('import', 'some.jsonl', '--json');
    expect(code).toBe(2);
    expect(stderr).toMatch(/some\.jsonl:3: malformed_json: .* at column 2$/m);
    expect(stderr).toMatch(/some\.jsonl:4, field answer: missing_field/);
    const source = JSON.parse(stdout) as Source & { rejects: RejectedRow[] };
    expect(source).toMatchObject({ rowsIn: 5, rows: 3, rejected: 2 });
    expect(source.rejects.map(({ line }) => line)).toEqual([3, 4]);
    expect((await caravan.run('import', 'some.jsonl', '--name', 'tolerated', '--allow-rejects')).code).toBe(
      0,
    );
  });

  test.each([
    ['cut.json', '[{"instruction": "x", ', 'no_rows', { line: 1 }],
    ['latin.jsonl', Buffer.from('{"question":"caf\xe9","answer":"x"}\n', 'latin1'), 'no_rows', { line: 1 }],
    ['answerless.jsonl', '{"question":"why?","answer":""}\n', 'no_rows', { line: 1 }],
    ['empty.jsonl', '', 'no_rows', {}],
  ])('%s is bad input', async (name, content, code, place) => {
    const file = caravan.write(name, content);
    const result = await caravan.run('import', name, '--json');
    expect(result.code).toBe(2);
    expect(errorOf(result.stdout)).toMatchObject({ code, place: { file, ...place } });
    expect(result.stderr).toContain(name);
  });

  test('a conversation with a model that is not there ends before it begins', async () => {
    const { code, stdout, stderr } = await caravan.run('chat', '--model', 'nowhere');
    expect(code).toBe(2);
    expect(stdout + stderr).toContain('nowhere');
    expect(stderr).not.toContain('> ');
  });

  test('a file that is not there is named', async () => {
    const { code, stdout } = await caravan.run('import', 'none.jsonl', '--json');
    expect(code).toBe(2);
    expect(errorOf(stdout)).toMatchObject({
      code: 'not_found',
      place: { file: join(caravan.folder, 'none.jsonl') },
    });
  });

  test('a mix has the same bytes each time', async () => {
    caravan.write(
      'text.yaml',
      'name: text\nseed: 3\nsources:\n  - { name: sums, source: sums, count: 40 }\nvalidation: { perSource: 10 }\n',
    );
    const [first, second] = [
      await caravan.json<Mix>('mix', 'text.yaml', '--out', 'one'),
      await caravan.json<Mix>('mix', 'text.yaml', '--out', 'two'),
    ];
    expect(first).toMatchObject({ rows: 40, validationRows: 10 });
    expect(second.contentHash).toBe(first.contentHash);
    const digest = (folder: string) =>
      readdirSync(join(caravan.folder, folder))
        .sort()
        .map((name) => [
          name,
          createHash('sha256')
            .update(readFileSync(join(caravan.folder, folder, name)))
            .digest('hex'),
        ]);
    expect(digest('one')).toEqual(digest('two'));
    expect(digest('one').map(([name]) => name)).toEqual(
      expect.arrayContaining(['manifest.json', 'mix.parquet', 'rejects.parquet']),
    );
  });

  test.runIf(addon)(
    'near-duplicates are set aside, named with what they repeat, the same each time',
    async () => {
      const long = (index: number, end: string) =>
        `Item ${index}: ${Array.from({ length: 40 }, (_, word) => `word${(index * 97 + word * 31) % 1009}`).join(' ')} ${end}`;
      const lines = Array.from({ length: 60 }, (_, index) =>
        JSON.stringify({ question: `What of ${index}?`, answer: long(index, 'at last.') }),
      );
      for (let index = 0; index < 12; index++)
        lines.push(JSON.stringify({ question: `What of ${index}?`, answer: long(index, 'in the end!') }));
      caravan.write('long.jsonl', lines.join('\n'));
      await caravan.json<Source>('import', 'long.jsonl');
      caravan.write(
        'near.yaml',
        'name: near\nsources: [{ name: long, source: long }]\ndedup: { method: near, ngram: 3, threshold: 0.75 }\n',
      );
      const [first, second] = [
        await caravan.json<Mix>('mix', 'near.yaml', '--out', 'near-one'),
        await caravan.json<Mix>('mix', 'near.yaml', '--out', 'near-two'),
      ];
      expect(first.sources).toMatchObject([
        { rowsIn: 72, rows: 60, rejectedByReason: { near_duplicate: 12 } },
      ]);
      expect(first.recipe.dedup).toEqual({ method: 'near', ngram: 3, threshold: 0.75 });
      expect(second.contentHash).toBe(first.contentHash);
      const manifest = JSON.parse(
        readFileSync(join(caravan.folder, 'near-one', 'manifest.json'), 'utf8'),
      ) as object;
      expect(manifest).toMatchObject({ nearDuplicates: { ngram: 3, clusters: 12, removed: 12 } });
      const told = await caravan.run('mix', 'near.yaml');
      expect(told.stdout).toContain('12 near_duplicate');
    },
  );

  test.each([
    [
      'a misspelled key',
      'name: x\nsources:\n  - name: a\n    sorce: sums\n',
      { line: 4, field: 'sources.0.sorce' },
    ],
    ['no YAML', 'name: [x\n', {}],
    ['an unknown source', 'name: x\nsources: [{ name: a, source: nope }]\n', { field: 'sources[0].source' }],
    [
      'more rows than there are',
      'name: x\nsources: [{ name: a, source: sums, count: 9999 }]\n',
      { field: 'sources[0].count' },
    ],
    [
      'no row left',
      'name: x\nsources: [{ name: a, source: sums, filter: { minAnswerChars: 9999 } }]\n',
      { field: 'sources[0]' },
    ],
  ])('a recipe with %s is bad input', async (_what, recipe, place) => {
    caravan.write('bad.yaml', recipe);
    const { code, stdout } = await caravan.run('mix', 'bad.yaml', '--json');
    expect(code).toBe(2);
    expect(errorOf(stdout).place).toMatchObject(place);
  });
});

describe.runIf(needs('data', 'imports of real rows'))('real rows', () => {
  test('the IDAE sample comes in without a lost row', async () => {
    const source = await caravan.json<Source>('import', testData('data/idae-sample.json'));
    expect(source).toMatchObject({ format: 'reference', rowsIn: 500, rows: 500, rejected: 0 });
    expect(Object.values(source.labels).reduce((sum, count) => sum + count, 0)).toBe(500);
  });

  test('GSM8K comes in without a lost row, by its shape and by a mapping', async () => {
    const file = testData('data/gsm8k-train.jsonl');
    const [byShape, byMapping] = [
      await caravan.json<Source>('import', file),
      await caravan.json<Source>(
        'import',
        file,
        '--name',
        'gsm8k-mapped',
        '--map',
        'prompt=question',
        '--map',
        'answer=answer',
      ),
    ];
    expect(byShape).toMatchObject({ format: 'question-answer', rowsIn: 7473, rows: 7473, rejected: 0 });
    expect(byMapping).toMatchObject({ format: 'mapping', rowsIn: 7473, rows: 7473, rejected: 0 });
  });
});

describe.runIf(addon)('with a model', () => {
  beforeAll(async () => {
    writeTinyModel(join(caravan.folder, 'tiny'));
    caravan.write('sums.jsonl', rows(120));
    await caravan.run('import', 'sums.jsonl', '--name', 'for-training');
    caravan.write(
      'recipe.yaml',
      'name: trained\nseed: 3\nmodel: tiny\nseqLen: 128\nsources:\n  - { name: sums, source: for-training, count: 64 }\nvalidation: { perSource: 8 }\n',
    );
    caravan.write('run.yaml', runFile(''));
  });

  function runFile(more: string): string {
    return [
      'name: first',
      'model: tiny',
      'mix: trained',
      'method: pesc',
      'baseDtype: f32',
      'computeDtype: f32',
      'loraRank: 4',
      'loraAlpha: 8',
      'numExperts: 4',
      'topK: 2',
      'adapterDim: 8',
      'batchSize: 8',
      'microBatchSize: 2',
      'seqLen: 128',
      'lr: 0.005',
      'maxSteps: 6',
      'evalSteps: 3',
      'saveSteps: 3',
      'threads: 1',
      more,
    ].join('\n');
  }

  test('model inspect, add and list', async () => {
    const inspected = await caravan.json<Model>('model', 'inspect', 'tiny');
    expect(inspected).toMatchObject({
      family: 'llama',
      numLayers: 2,
      hiddenSize: 32,
      vocabSize: 4096,
      tiedEmbeddings: true,
    });
    const added = await caravan.json<Model>('model', 'add', 'tiny', '--name', 'little');
    expect(added.identity).toMatch(/^[0-9a-f]{64}$/);
    expect((await caravan.json<Model[]>('model', 'list')).map(({ name }) => name)).toEqual(['little']);
    writeTinyModel(join(caravan.folder, 'another'), 2);
    expect((await caravan.run('model', 'add', 'another', '--name', 'little')).code, 'the name is taken').toBe(
      2,
    );
  });

  test.each([
    [
      'config.json without a key',
      'config.json',
      (text: string) => text.replace('"hidden_size"', '"hidden"'),
      'hidden_size',
    ],
    [
      'an unknown architecture',
      'config.json',
      (text: string) => text.replace('LlamaForCausalLM', 'MambaForCausalLM'),
      'MambaForCausalLM',
    ],
    [
      'a tensor file cut short',
      'model.safetensors',
      (text: string) => text.slice(0, 5000),
      'model.safetensors',
    ],
    [
      'tensors that overlap',
      'model.safetensors',
      (text: string) =>
        text
          .replace(/"data_offsets":\[(\d+),(\d+)\]/, '"data_offsets":[0,$2]')
          .replace(/"data_offsets":\[\d+,(\d+)\]/g, '"data_offsets":[0,$1]'),
      'model.safetensors',
    ],
    [
      'a header of 10 GB',
      'model.safetensors',
      (text: string) => `\x00\xe4\x0b\x54\x02\x00\x00\x00${text.slice(8)}`,
      'model.safetensors',
    ],
  ])('a model with %s is bad input', async (_what, name, spoil, named) => {
    const dir = writeTinyModel(join(caravan.folder, 'spoiled'));
    const path = join(dir, name);
    caravan.write(`spoiled/${name}`, Buffer.from(spoil(readFileSync(path, 'latin1')), 'latin1'));
    const { code, stderr } = await caravan.run('model', 'inspect', 'spoiled', '--json');
    expect(code).toBe(2);
    expect(stderr).toContain(named);
  });

  test('a mix whose template needs a token that the tokenizer lacks is bad input', async () => {
    writeTinyModel(join(caravan.folder, 'endless'));
    caravan.write(
      'endless/tokenizer_config.json',
      JSON.stringify({ bos_token: null, eos_token: '<|nowhere|>' }),
    );
    caravan.write(
      'endless.yaml',
      'name: endless\nmodel: endless\nseqLen: 128\nsources:\n  - { name: sums, source: for-training, count: 8 }\n',
    );
    const { code, stderr } = await caravan.run('mix', 'endless.yaml', '--json');
    expect(code).toBe(2);
    expect(stderr).toContain('<|nowhere|>');
  });

  test('tokenize gives the ids of the text alone', async () => {
    caravan.write(
      'texts.jsonl',
      `${JSON.stringify({ text: 'What is 3 plus 4?' })}\n${JSON.stringify({ text: '' })}\n`,
    );
    const lines = await caravan.lines<{ ids: number[] }>(
      'tokenize',
      '--model',
      'tiny',
      '--jsonl',
      'texts.jsonl',
    );
    expect(lines).toHaveLength(2);
    expect(lines[0]!.ids.length).toBeGreaterThan(3);
    expect(lines[1]!.ids).toEqual([]);
    caravan.write('wrong.jsonl', '{"text":"a"}\n\n{"txt":"b"}\n');
    const wrong = await caravan.run('tokenize', '--model', 'tiny', '--jsonl', 'wrong.jsonl', '--json');
    expect(wrong.code).toBe(2);
    expect(errorOf(wrong.stdout).place).toMatchObject({ line: 3, field: 'text' });
  });

  test('mix, plan, train, and the run is kept', async () => {
    const mix = await caravan.json<Mix>('mix', 'recipe.yaml');
    expect(mix).toMatchObject({ rows: 64, validationRows: 8, template: 'camelidae', seqLen: 128 });
    expect(mix.targetTokens).toBeGreaterThan(64);

    const plan = await caravan.json<Plan>('plan', 'run.yaml');
    expect(plan).toMatchObject({ rows: 64, steps: 6, fits: true });
    expect(plan.parameters.trainable).toBe(
      plan.parameters.lora + plan.parameters.adapters + plan.parameters.routers,
    );
    expect(plan.probe!.stepMs).toBeGreaterThan(0);

    const run = await caravan.json<Run>('train', 'run.yaml');
    expect(run).toMatchObject({
      name: 'first',
      state: 'completed',
      step: 6,
      totalSteps: 6,
      stepZeroDifference: 0,
    });
    expect(run.firstEvaluation!.step).toBe(0);
    expect(run.lastEvaluation!.loss!).toBeLessThan(run.firstEvaluation!.loss!);
    for (const name of [
      'run.yaml',
      'run.lock.json',
      'metrics.jsonl',
      'log.txt',
      'checkpoints/step-000006/manifest.json',
    ])
      expect(existsSync(join(run.dir, name)), name).toBe(true);

    const [listed] = await caravan.json<Run[]>('runs', 'list');
    expect(listed).toMatchObject({ id: run.id, state: 'completed' });
    const shown = await caravan.json<Run & { evaluations: Evaluation[] }>('runs', 'show', 'first');
    expect(shown.evaluations.map(({ step }) => step)).toEqual([0, 3, 6]);
    expect(await caravan.json('runs', 'export', 'first', '--out', 'steps.csv')).toMatchObject({ steps: 6 });
    expect(readFileSync(join(caravan.folder, 'steps.csv'), 'utf8').trimEnd().split('\n')).toHaveLength(7);
  });

  test('a second run beside it can be compared', async () => {
    caravan.write(
      'second.yaml',
      runFile('').replace('name: first', 'name: second').replace('method: pesc', 'method: lora'),
    );
    expect(await caravan.json<Run>('train', 'second.yaml')).toMatchObject({ state: 'completed' });
    await caravan.json('runs', 'tag', 'first', 'second', '--add', 'paper');
    await caravan.json('runs', 'star', 'second');
    await caravan.json('runs', 'note', 'first', 'the dense baseline');
    await caravan.json('runs', 'archive', 'first');
    const names = async (...options: string[]) =>
      (await caravan.json<Run[]>('runs', 'list', ...options)).map(({ name }) => name);
    expect(await names('--filter', 'tag:paper')).toEqual(['second']);
    expect(await names('--filter', 'tag:paper and note ~ dense', '--archived')).toEqual(['first']);
    expect(await names('--archived', '--sort', 'name')).toEqual(['first', 'second']);
    const table = await caravan.run('runs', 'list', '--columns', 'name,lr,starred');
    expect(table.stdout).toMatch(/^name +lr +starred\nsecond .* yes/);
    const wrong = await caravan.run('runs', 'list', '--filter', 'step > 2 and los < 1');
    expect(wrong).toMatchObject({ code: 2 });
    expect(wrong.stderr).toContain(`do you mean loss?\n  step > 2 and los < 1\n  ${' '.repeat(13)}^^^`);
    await caravan.json('runs', 'trash', 'first');
    expect(await names('--archived')).toEqual(['second']);
    expect(await names('--trash')).toEqual(['first']);
    expect(await caravan.run('runs', 'remove', 'second')).toMatchObject({ code: 2 });
    await caravan.json('runs', 'restore', 'first');
    await caravan.json('runs', 'unarchive', 'first');
    const compared = await caravan.json<{ differing: string[] }>('runs', 'compare', 'first', 'second');
    expect(compared.differing).toContain('method');
  });

  test('Ctrl-C stops with a checkpoint and exit code 4; resume goes on from there', async () => {
    caravan.write(
      'long.yaml',
      runFile('')
        .replace('name: first', 'name: long')
        .replace('maxSteps: 6', 'maxSteps: 4000')
        .replace('evalSteps: 3', 'evalSteps: 0') + '\nepochs: 1000\n',
    );
    const training = caravan.start('train', 'long.yaml', '--json');
    await expect
      .poll(
        async () =>
          (await caravan.json<Run[]>('runs', 'list')).find(({ name }) => name === 'long')?.step ?? 0,
        { timeout: 60_000, interval: 300 },
      )
      .toBeGreaterThan(2);
    training.child.kill('SIGINT');
    const stopped = await training.ended;
    expect(stopped.code).toBe(4);
    const run = JSON.parse(stopped.stdout) as Run;
    expect(run.state).toBe('stopped');
    expect(run.lastCheckpoint).not.toBeNull();
    expect(stopped.stderr).toContain('train --resume');
    await caravan.json<Run>('train', '--resume', 'long', '--detach');
    await expect
      .poll(async () => (await caravan.json<Run>('runs', 'show', 'long')).step, {
        timeout: 60_000,
        interval: 300,
      })
      .toBeGreaterThan(run.step);
    expect((await caravan.json<Run>('runs', 'show', 'long')).attempt).toBe(run.attempt + 1);
    expect((await caravan.run('runs', 'stop', 'long')).code).toBe(0);
    await expect
      .poll(async () => (await caravan.json<Run>('runs', 'show', 'long')).state, {
        timeout: 60_000,
        interval: 300,
      })
      .toBe('stopped');
  });

  test.each([
    ['more experts a token than there are', 'topK: 9\n', 'topK'],
    ['a sequence longer than the model takes', 'seqLen: 512\n', 'seqLen'],
    ['a misspelled option', 'learningRate: 1\n', 'learningRate'],
  ])('a run with %s is bad input', async (_what, more, field) => {
    const key = more.split(':')[0]!;
    const others = runFile('')
      .split('\n')
      .filter((line) => !line.startsWith(`${key}:`));
    caravan.write('bad-run.yaml', [...others, more].join('\n'));
    const { code, stderr } = await caravan.run('train', 'bad-run.yaml', '--json');
    expect(code).toBe(2);
    expect(stderr).toContain(field);
  });

  test('chat answers from the base and from the run, greedily the same each time', async () => {
    type Reply = { text: string; ids: number[]; stop_reason: string; tokens_per_second: number };
    const ask = (model: string) =>
      caravan.json<Reply>(
        'chat',
        '--model',
        model,
        '--prompt',
        'What is 3 plus 4?',
        '--temperature',
        '0',
        '--max-tokens',
        '12',
      );
    const base = await ask('tiny');
    expect(base.ids.length).toBeLessThanOrEqual(12);
    expect(['length', 'eos']).toContain(base.stop_reason);
    const tuned = await ask('run:first');
    expect(tuned.ids).not.toEqual(base.ids);
    expect((await ask('run:first')).ids).toEqual(tuned.ids);
  });

  test('score and route', async () => {
    caravan.write(
      'pairs.jsonl',
      `${JSON.stringify({ context: 'What is 3 plus 4?', continuation: ' 7' })}\n${JSON.stringify({ context: 'a', continuation: ' b c' })}\n`,
    );
    const scores = await caravan.lines<{
      logprob: number;
      token_logprobs: number[];
      ids: number[];
      greedy: boolean;
    }>('score', '--model', 'tiny', '--jsonl', 'pairs.jsonl');
    expect(scores).toHaveLength(2);
    for (const score of scores) {
      expect(score.token_logprobs).toHaveLength(score.ids.length);
      expect(score.token_logprobs.reduce((sum, value) => sum + value, 0)).toBeCloseTo(score.logprob, 5);
      expect(score.logprob).toBeLessThan(0);
    }
    caravan.write(
      'routed.jsonl',
      `${JSON.stringify({ text: 'What is 3 plus 4?', source: 'sums' })}\n${JSON.stringify({ text: 'A camel.', source: 'camels' })}\n`,
    );
    const routed = await caravan.json<{
      layers: number;
      experts: number;
      sources: { source: string; any: number[] }[];
    }>('route', '--model', 'run:first', '--jsonl', 'routed.jsonl');
    expect(routed).toMatchObject({ layers: 2, experts: 4 });
    expect(routed.sources.map(({ source }) => source).sort()).toEqual(['camels', 'sums']);
    for (const { any } of routed.sources)
      for (let layer = 0; layer < 2; layer++)
        expect(any.slice(layer * 4, layer * 4 + 4).reduce((sum, share) => sum + share, 0)).toBeCloseTo(2, 5);
    expect(
      (await caravan.run('route', '--model', 'tiny', '--jsonl', 'routed.jsonl')).code,
      'no experts',
    ).toBe(2);
  });

  test('doctor', async () => {
    const { code, stdout } = await caravan.run('doctor', '--json');
    const report = JSON.parse(stdout) as {
      checks: { name: string; status: string }[];
      devices: { kind: string }[];
    };
    expect(report.devices[0]).toMatchObject({ kind: 'cpu' });
    expect(code).toBe(report.checks.some(({ status }) => status === 'missing') ? 3 : 0);
  });

  test('a model or run that is not there is bad input', async () => {
    for (const args of [
      ['chat', '--model', 'nope', '--prompt', 'x'],
      ['runs', 'show', 'nope'],
      ['train', '--resume', 'nope'],
      ['train', 'nope.yaml'],
      ['model', 'inspect', './nope'],
    ]) {
      const { code, stderr } = await caravan.run(...args);
      expect(code, args.join(' ')).toBe(2);
      expect(stderr).toContain('nope');
    }
  });
});
