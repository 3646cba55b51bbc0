/** What the scripted host has: a small library, runs in every state, two chats. Numbers follow formulas, not chance. */
import { samplingSchema, type ChatMessage, type ChatThread } from '../../core/shared/chat/chat.ts';
import type { CallResult } from '../../core/shared/contract/contract.ts';
import type { Mix } from '../../core/shared/dataset/recipe.ts';
import type { Source } from '../../core/shared/dataset/source.ts';
import type { Job } from '../../core/shared/job/job.ts';
import type { Model } from '../../core/shared/model/model.ts';
import type { Evaluation, Plan, Run, Step } from '../../core/shared/run/run.ts';
import { runConfigSchema, type RunConfigInput } from '../../core/shared/run/runConfig.ts';

const sources = ['code', 'general', 'math'];
const [layers, experts] = [6, 8];
const hour = 3_600_000;
const GiB = 1024 ** 3;

export interface ScriptedRun {
  run: Run;
  steps: Step[];
  evaluations: Evaluation[];
  log: string[];
  stepAt(step: number): Step;
  rowsAt(step: number): CallResult<'readStepRows'>;
}

export function scriptedWorld(empty: boolean) {
  const startedAt = Date.now() - 2 * hour;
  const runs = empty
    ? []
    : [
        scriptedRun(
          { id: 'r1', name: 'demo-pesc-8x64', state: 'running', step: 212, total: 480, age: 0.1, note: '' },
          {},
        ),
        scriptedRun(
          {
            id: 'r2',
            name: 'demo-lora-r64',
            state: 'completed',
            step: 480,
            total: 480,
            age: 5,
            note: 'baseline',
          },
          { method: 'lora', lr: 4e-4 },
        ),
        scriptedRun(
          { id: 'r3', name: 'balance-0.05', state: 'interrupted', step: 137, total: 480, age: 9, note: '' },
          { balanceCoefficient: 0.05 },
        ),
        scriptedRun(
          {
            id: 'r4',
            name: 'no-balance',
            state: 'completed',
            step: 480,
            total: 480,
            age: 26,
            note: 'routers left alone',
          },
          { balanceCoefficient: 0 },
        ),
        scriptedRun(
          { id: 'r5', name: 'lr-2e-2', state: 'failed', step: 31, total: 480, age: 30, note: '' },
          { lr: 2e-2 },
        ),
        scriptedRun(
          { id: 'r6', name: 'full-baseline', state: 'stopped', step: 260, total: 480, age: 52, note: '' },
          { method: 'full', baseDtype: 'f32' },
        ),
        scriptedRun(
          {
            id: 'r7',
            name: 'pesc-16-experts',
            state: 'completed',
            step: 2400,
            total: 2400,
            age: 200,
            note: '',
          },
          { numExperts: 16, topK: 4 },
        ),
      ];
  return {
    startedAt,
    runs,
    system: system(),
    plan,
    jobs: empty ? [] : jobs(),
    sources: empty ? [] : library.sources,
    mixes: empty ? [] : library.mixes,
    models: empty ? [] : library.models,
    threads: empty ? [] : threads(),
    answerTo,
  };
}

/** A wave in [-1, 1] that looks irregular and is the same every time. */
function wave(x: number, seed: number): number {
  return Math.sin(x * 12.9898 + seed * 78.233) * Math.cos(x * 4.1414 + seed * 3.7);
}

function scriptedRun(
  say: {
    id: string;
    name: string;
    state: Run['state'];
    step: number;
    total: number;
    age: number;
    note: string;
  },
  options: Partial<RunConfigInput>,
): ScriptedRun {
  const config = runConfigSchema.parse({
    model: 'caravan-demo-base',
    mix: 'demo-3-1-1',
    name: say.name,
    batchSize: 16,
    seqLen: 256,
    adapterDim: 64,
    baseDtype: 'bf16',
    evalSteps: 60,
    saveSteps: 60,
    lr: 1e-3,
    ...options,
  });
  const seed = say.id.charCodeAt(1);
  const sparse = config.method === 'pesc' || config.method === 'upcycle';
  const begun = Date.now() - say.age * hour;
  const floor = config.method === 'lora' ? 1.21 : 1.08;
  const stepAt = (step: number): Step => {
    const trend = floor + 1.5 * Math.exp(-step / 90);
    const spike = step % 97 === 96 ? 0.55 : 0;
    const diverging = say.state === 'failed' && step > 28;
    const loss = diverging ? null : trend + 0.07 * wave(step, seed) + spike;
    return {
      step,
      epoch: step / say.total,
      loss,
      lossBySource: sources.map((source, index) => ({
        source,
        loss: loss === null ? null : loss * [0.82, 1.12, 0.95][index]! + 0.04 * wave(step, index),
        targetTokens: 400 + 30 * index,
      })),
      balanceLoss: sparse ? config.balanceCoefficient * layers * (1 + 0.35 * Math.exp(-step / 60)) : null,
      balanceGradNorm: sparse
        ? config.balanceCoefficient * (0.2 + Math.exp(-step / 40) + 0.05 * wave(step, 9))
        : null,
      lr: config.lr * Math.min(1, step / 14),
      gradNorm: diverging ? null : 0.4 + 0.9 * Math.exp(-step / 50) + 0.12 * Math.abs(wave(step, 5)) + spike,
      skipped: diverging,
      tokens: 2900,
      targetTokens: 1290,
      paddingTokens: 130,
      stepMs: 470 + 20 * wave(step, 4),
      tokensPerSecond: 6150 + 260 * wave(step, 6),
      memoryBytes: 612e6 + 4e6 * Math.min(20, step),
      expertShares: sparse ? sharesAt(step, config.numExperts, config.topK, seed) : [],
      at: begun + step * 480,
    };
  };
  const steps = Array.from({ length: say.step }, (_, index) => stepAt(index + 1));
  const evaluations: Evaluation[] = [];
  for (let step = 0; step <= say.step; step += config.evalSteps) {
    const loss = floor + 0.06 + 1.55 * Math.exp(-step / 90);
    evaluations.push({
      step,
      loss,
      bySource: sources.map((source, index) => ({
        source,
        loss: loss * [0.84, 1.1, 0.97][index]!,
        targetTokens: 5200,
        rows: 64,
      })),
    });
  }
  const last = steps.at(-1)!;
  const ended = say.state !== 'running';
  const run: Run = {
    id: say.id,
    name: say.name,
    state: say.state,
    phase: ended ? (say.state === 'completed' ? 'finished' : null) : 'training',
    config,
    dir: `/home/ada/.local/share/caravan/runs/${say.id}`,
    modelName: 'caravan-demo-base',
    mixName: 'demo-3-1-1',
    step: say.step,
    totalSteps: say.total,
    loss: last.loss,
    tokensPerSecond: last.tokensPerSecond,
    etaMs: ended ? null : (say.total - say.step) * 470,
    elapsedMs: say.step * 475,
    firstEvaluation: evaluations[0]!,
    lastEvaluation: evaluations.at(-1)!,
    lastCheckpoint: `step-${String(say.step - (say.step % 60)).padStart(6, '0')}`,
    stepZeroDifference: config.method === 'upcycle' ? 3e-6 : config.method === 'full' ? null : 0,
    quantizationDifference: null,
    error:
      say.state === 'failed'
        ? {
            code: 'diverged',
            message: 'the loss was not finite for three steps in a row (29 to 31)',
            mend: 'Lower lr, or set maxGradNorm; the checkpoint of step 0 is kept.',
          }
        : null,
    crash:
      say.state === 'interrupted'
        ? {
            exitCode: null,
            signal: 'SIGKILL',
            line: 'Killed',
            stderrTail: ['step 136: loss 1.492', 'step 137: loss 1.481', 'Killed'],
            lastStep: 137,
            lastCheckpoint: 'step-000120',
            memoryBytes: 692e6,
            advice: 'The system ended the engine, most likely for want of memory: 692 MB were in use.',
          }
        : null,
    note: say.note,
    tags: [],
    starred: false,
    archived: false,
    trashedAt: null,
    attempt: 0,
    createdAt: begun,
    startedAt: begun + 800,
    endedAt: ended ? begun + say.step * 480 : null,
  };
  return { run, steps, evaluations, log: logOf(run), stepAt, rowsAt: (step) => rowsAt(step, steps) };
}

function sharesAt(step: number, numExperts: number, _topK: number, seed: number): number[] {
  const shares: number[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const weights = Array.from({ length: numExperts }, (_, expert) => {
      const leaning = 1 + 0.9 * wave(layer * 3.1 + expert, seed) * (0.5 + 0.5 * Math.exp(-step / 150));
      const dead = layer === 4 && expert === 6;
      return dead ? 0.002 : Math.max(0.05, leaning + 0.1 * wave(step + expert, layer));
    });
    const sum = weights.reduce((total, weight) => total + weight, 0);
    shares.push(...weights.map((weight) => weight / sum));
  }
  return shares;
}

function rowsAt(step: number, steps: Step[]): CallResult<'readStepRows'> {
  const loss = steps.find((one) => one.step === step)?.loss ?? null;
  return Array.from({ length: 16 }, (_, index) => {
    const source = sources[index % 3]!;
    return {
      row: (step * 16 + index * 37) % 4000,
      source,
      sourceRow: (step * 16 + index * 37) % 977,
      file: `${source}.jsonl`,
      line: ((step * 16 + index * 37) % 977) + 1,
      hash: `5f${String(step * 16 + index).padStart(30, '0')}`,
      loss:
        loss === null
          ? null
          : loss * (0.6 + 0.09 * ((index * 7) % 10)) + (step % 97 === 96 && index === 4 ? 4.2 : 0),
      tokens: 64 + ((index * 53) % 190),
      messages:
        source === 'math'
          ? [
              {
                role: 'user',
                content: `Tom has ${index + 3} baskets with ${step % 9} apples each. How many apples are there?`,
              },
              {
                role: 'assistant',
                content: `${index + 3} × ${step % 9} = ${(index + 3) * (step % 9)}. The answer is ${(index + 3) * (step % 9)}.`,
              },
            ]
          : source === 'code'
            ? [
                { role: 'user', content: 'Write a Python function that returns the largest of a list.' },
                {
                  role: 'assistant',
                  content:
                    'def largest(items):\n    best = items[0]\n    for item in items[1:]:\n        if item > best:\n            best = item\n    return best',
                },
              ]
            : [
                { role: 'system', content: 'You are a helpful assistant.' },
                { role: 'user', content: 'Which of these animals lives in the desert: camel, otter, seal?' },
                { role: 'assistant', content: 'The camel lives in the desert.' },
              ],
    };
  });
}

function logOf(run: Run): string[] {
  return [
    `caravan 0.1.0, run ${run.id}, resumed ${run.attempt} times`,
    `base ${run.modelName}: 5.5M parameters, ${run.config.baseDtype}`,
    `mix ${run.mixName}: 3,840 rows, 412,004 tokens`,
    'step-0 identity: max |logit difference| = 0',
    ...Array.from(
      { length: Math.floor(run.step / 20) },
      (_, index) =>
        `step ${(index + 1) * 20}: loss ${(1.1 + 1.5 * Math.exp((-(index + 1) * 20) / 90)).toFixed(4)}`,
    ),
  ];
}

function system(): CallResult<'systemStatus'> {
  return {
    devices: [
      {
        device: 'cpu',
        kind: 'cpu',
        name: 'AMD Ryzen 7 7840U',
        units: 16,
        totalMemoryBytes: 32 * GiB,
        freeMemoryBytes: 18.4 * GiB,
      },
    ],
    loadAverage: 7.42,
    memory: { totalBytes: 32 * GiB, freeBytes: 18.4 * GiB },
    disk: { totalBytes: 953 * GiB, freeBytes: 411 * GiB },
    processes: [
      { name: 'Host', pid: 48211, memoryBytes: 118e6, runId: null },
      { name: 'Training engine', pid: 48260, memoryBytes: 692e6, runId: null },
      { name: 'Chat engine', pid: 48311, memoryBytes: 240e6, runId: null },
    ],
  };
}

const plan: Plan = {
  parameters: {
    base: 5_510_000,
    lora: 1_130_000,
    adapters: 1_580_000,
    routers: 12_288,
    trainable: 2_722_288,
    total: 8_232_288,
  },
  memory: [
    { item: 'base weights', bytes: 11e6 },
    { item: 'trainable weights', bytes: 10.9e6 },
    { item: 'gradients', bytes: 10.9e6 },
    { item: 'optimizer', bytes: 21.8e6 },
    { item: 'activations', bytes: 540e6 },
  ],
  totalMemoryBytes: 594.6e6,
  hostMemoryBytes: 0,
  availableMemoryBytes: 18.4 * GiB,
  fits: true,
  checkpointBytes: 32.7e6,
  rows: 3840,
  steps: 480,
  warmupSteps: 14,
  probe: null,
  estimatedMs: 226_000,
};

function jobs(): Job[] {
  const now = Date.now();
  return [
    {
      id: 'j1',
      kind: 'train',
      title: 'Train demo-pesc-8x64',
      state: 'running',
      progress: { done: 212, total: 480, unit: 'steps', rate: 2.1, etaMs: 126_000 },
      subjectId: 'r1',
      place: null,
      held: false,
      canPause: true,
      canCancel: true,
      error: null,
      createdAt: now - 101_000,
      startedAt: now - 100_000,
      endedAt: null,
    },
    {
      id: 'j2',
      kind: 'mix',
      title: 'Mix idae-720',
      state: 'running',
      progress: { done: 418, total: 720, unit: 'rows', rate: 44, etaMs: 7000, stage: 'tokenising' },
      subjectId: null,
      place: null,
      held: false,
      canPause: false,
      canCancel: true,
      error: null,
      createdAt: now - 9000,
      startedAt: now - 8800,
      endedAt: null,
    },
    {
      id: 'j3',
      kind: 'import',
      title: 'Import magicoder-evol.jsonl',
      state: 'failed',
      progress: { done: 0, total: null, unit: 'rows', rate: null, etaMs: null },
      subjectId: null,
      place: null,
      held: false,
      canPause: false,
      canCancel: false,
      error: {
        code: 'bad_file',
        message: 'the file ends inside a JSON string',
        place: { file: 'magicoder-evol.jsonl', line: 1204, field: 'response' },
        mend: 'Download it again; the last 3 MB are missing.',
      },
      createdAt: now - 2 * hour,
      startedAt: now - 2 * hour,
      endedAt: now - 2 * hour + 2400,
    },
    {
      id: 'j4',
      kind: 'mix',
      title: 'Mix demo-3-1-1',
      state: 'completed',
      progress: { done: 3840, total: 3840, unit: 'rows', rate: 2800, etaMs: 0 },
      subjectId: 'm1',
      place: null,
      held: false,
      canPause: false,
      canCancel: false,
      error: null,
      createdAt: now - 5.2 * hour,
      startedAt: now - 5.2 * hour,
      endedAt: now - 5.2 * hour + 6100,
    },
  ];
}

const library = {
  sources: sources.map(sourceOf),
  mixes: [mix()],
  models: [model('caravan-demo-base', 5_510_000), model('SmolLM2-135M', 134_515_008)],
};

function sourceOf(name: string, index: number): Source {
  return {
    id: `s${index}`,
    name: `demo-${name}`,
    files: [`/home/ada/data/${name}.jsonl`],
    format: 'messages',
    notes: [],
    rowsIn: 2400,
    rows: 2400 - index,
    rejected: index,
    rejectedByReason: index > 0 ? { empty_answer: index } : {},
    labels: {},
    bytes: 1_200_000,
    contentHash: 'ab'.repeat(32),
    importedAt: Date.now() - 6 * hour,
  };
}

function mix(): Mix {
  return {
    id: 'm1',
    name: 'demo-3-1-1',
    dir: '/home/ada/.local/share/caravan/mixes/demo-3-1-1',
    rows: 3840,
    validationRows: 192,
    tokens: 412_004,
    targetTokens: 188_310,
    sources: sources.map((name) => ({
      name,
      rowsIn: 2400,
      rows: 1280,
      validationRows: 64,
      tokens: 137_000,
      targetTokens: 62_000,
      rejectedByReason: {},
    })),
    model: 'caravan-demo-base',
    template: 'camelidae',
    seqLen: 256,
    contentHash: 'cd'.repeat(32),
    recipe: {
      name: 'demo-3-1-1',
      sources: sources.map((name) => ({ name, source: `demo-${name}`, format: 'auto' as const })),
      seed: 0,
      dedup: 'exact',
      template: 'camelidae',
      seqLen: 256,
    },
    builtAt: Date.now() - 5.2 * hour,
  };
}

function model(name: string, total: number): Model {
  return {
    id: name,
    name,
    dir: `/home/ada/models/${name}`,
    architecture: 'LlamaForCausalLM',
    family: 'llama',
    parameters: {
      embedding: total * 0.19,
      attention: total * 0.27,
      mlp: total * 0.53,
      norms: total * 0.01,
      head: 0,
      total,
    },
    hiddenSize: 256,
    intermediateSize: 704,
    numLayers: layers,
    numHeads: experts,
    numKvHeads: 4,
    headDim: 32,
    vocabSize: 4096,
    maxPositions: 1024,
    tiedEmbeddings: true,
    storedDtypes: ['BF16'],
    fileBytes: total * 2,
    hasChatTemplate: true,
    bosToken: '<s>',
    eosToken: '</s>',
    identity: null,
    addedAt: Date.now() - 7 * hour,
  };
}

function threads(): { thread: ChatThread; messages: ChatMessage[] }[] {
  const at = Date.now() - hour;
  const meta = {
    stopReason: 'eos' as const,
    promptTokens: 38,
    timeToFirstTokenMs: 164,
    tokensPerSecond: 41.7,
    tokens: 96,
    contextSize: 512,
    template: 'camelidae' as const,
    sampling: samplingSchema.parse({}),
  };
  return [
    {
      thread: {
        id: 't1',
        title: 'Largest of a list',
        model: 'run:demo-lora-r64',
        parent: null,
        createdAt: at,
        updatedAt: at + 60_000,
      },
      messages: [
        {
          id: 'a',
          role: 'user',
          content: 'Write a Python function that returns the largest of a list.',
          model: null,
          answer: null,
          createdAt: at,
        },
        {
          id: 'b',
          role: 'assistant',
          content: answerTo('python'),
          model: 'run:demo-lora-r64',
          answer: meta,
          createdAt: at + 9000,
        },
      ],
    },
    {
      thread: {
        id: 't2',
        title: 'Who lives in the desert?',
        model: 'caravan-demo-base',
        parent: 't1',
        createdAt: at - hour,
        updatedAt: at - hour,
      },
      messages: [
        {
          id: 'c',
          role: 'user',
          content: 'Who lives in the desert?',
          model: null,
          answer: null,
          createdAt: at - hour,
        },
        {
          id: 'd',
          role: 'assistant',
          content: 'The camel lives in the desert.',
          model: 'caravan-demo-base',
          answer: meta,
          createdAt: at - hour,
        },
      ],
    },
  ];
}

function answerTo(question: string): string {
  return /python|function|code/i.test(question)
    ? [
        'Keep the best value seen so far and compare every other item with it:',
        '',
        '```python',
        'def largest(items):',
        '    """Return the largest item; the list must not be empty."""',
        '    best = items[0]',
        '    for item in items[1:]:',
        '        if item > best:',
        '            best = item',
        '    return best',
        '```',
        '',
        '- It looks at each item **once**, so it takes time proportional to the length.',
        '- `max(items)` does the same, as [the manual](https://docs.python.org/3/library/functions.html#max) says.',
        '',
        '![a chart](https://tracker.example/pixel.png)',
      ].join('\n')
    : 'Each basket holds four apples, and there are seven baskets: 7 × 4 = 28. The answer is **28**.';
}
