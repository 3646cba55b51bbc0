import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needs } from '../../tests/support/skip.ts';
import {
  demoTokenizer,
  tinyModelOptions,
  tinyTraining,
  writeTinyModel,
  writeTinyShard,
} from '../../tests/support/tinyModel.ts';
import { loadAddon } from './loadAddon.ts';

/** What a script under test starts from; it says `begun` when its work is under way. */
interface Given {
  training: ReturnType<typeof tinyTraining>;
  model: ReturnType<typeof tinyModelOptions>;
  tokenizer: string;
}

describe.runIf(needs('addon'))('an environment that ends', () => {
  const folder = mkdtempSync(join(tmpdir(), 'caravan-environment-'));
  let given: Given;
  beforeAll(async () => {
    const modelDir = writeTinyModel(join(folder, 'model'));
    const trainShard = await writeTinyShard(loadAddon(), join(folder, 'train.safetensors'));
    given = {
      training: {
        ...tinyTraining({ modelDir, trainShard, checkpointDir: join(folder, 'run') }),
        epochs: 1_000_000,
      },
      model: tinyModelOptions(modelDir),
      tokenizer: demoTokenizer,
    };
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  let scripts = 0;
  /** Runs a script in a process of its own; `work` is in scope there with all that it starts. */
  function run(
    script: string,
    timeoutMs = 20_000,
  ): Promise<{ code: number | null; signal: string | null; output: string }> {
    const file = join(folder, `script-${++scripts}.ts`);
    writeFileSync(
      file,
      `import { Worker, isMainThread, parentPort } from 'node:worker_threads';
       import { loadAddon } from ${JSON.stringify(fileURLToPath(new URL('loadAddon.ts', import.meta.url)))};
       const given = ${JSON.stringify(given)};
       const addon = loadAddon();
       const silent = () => {};
       const listener = { onPhase: silent, onLoading: silent, onOpened: silent, onStep: silent, onEvaluation: silent, onCheckpoint: silent, onLog: silent };
       /** A run, an answer and a hash, all under way. */
       async function work(told: () => void) {
         const tokenizer = await addon.openTokenizer(given.tokenizer);
         const model = await addon.openModel(given.model);
         const trainer = addon.createTrainer(given.training, { ...listener, onStep: told });
         void trainer.start().catch(silent);
         const answer = () => model.generate({ generationId: 'a', promptIds: Int32Array.of(0, 5), maxTokens: 200,
           temperature: 0, stopIds: [], tokenizer }, silent).then(answer, silent);
         void answer();
         const hash = () => addon.hashModel(given.model.modelDir, silent).then(hash, silent);
         void hash();
       }
       ${script}`,
    );
    return new Promise((resolve) => {
      const child = spawn(process.execPath, [file], {
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: timeoutMs,
      });
      let output = '';
      for (const stream of [child.stdout, child.stderr])
        stream.on('data', (text: Buffer) => (output += text.toString()));
      child.once('close', (code, signal) => resolve({ code, signal, output }));
    });
  }

  test('by process.exit takes its threads along', async () => {
    const end = await run(`
      let steps = 0;
      await work(() => { if (++steps === 3) { console.log('begun'); process.exit(7); } });`);
    expect(end).toEqual({ code: 7, signal: null, output: 'begun\n' });
  });

  test('by an exception takes its threads along', async () => {
    const end = await run(`await work(() => { throw new Error('of the listener'); });`);
    expect(end).toMatchObject({ code: 1, signal: null });
    expect(end.output).toContain('of the listener');
  });

  test('as a worker thread leaves the process as it was', async () => {
    const end = await run(`
      if (isMainThread) {
        for (let i = 0; i < 3; i++) {
          const worker = new Worker(new URL(import.meta.url));
          await new Promise((resolve) => worker.once('message', resolve));
          await worker.terminate();
        }
        const tokenizer = await addon.openTokenizer(given.tokenizer);
        console.log(tokenizer.decode(tokenizer.encode('still here')));
      } else {
        let steps = 0;
        await work(() => { if (++steps === 2) parentPort!.postMessage('begun'); });
      }`);
    expect(end).toEqual({ code: 0, signal: null, output: 'still here\n' });
  });

  test('is not kept alive by what is merely open', async () => {
    const end = await run(`
      const open = [await addon.openTokenizer(given.tokenizer), await addon.openModel(given.model),
        addon.createTrainer(given.training, listener)];
      console.log(open.length);`);
    expect(end).toEqual({ code: 0, signal: null, output: '3\n' });
  });

  test('is kept alive by what is under way, and then ends', async () => {
    const end = await run(`
      const trainer = addon.createTrainer({ ...given.training, epochs: 2, checkpointDir: given.training.checkpointDir + '-2' }, listener);
      void trainer.start().then(({ reason }) => console.log(reason));`);
    expect(end).toEqual({ code: 0, signal: null, output: 'finished\n' });
  });
});
