/**
 * Entry of an engine process: loads the addon and serves one host. Asked to train, it lives for that run alone; else it
 * answers, scores and plans. A training run outlives its terminal and its window, but not its host: without it, it stops
 * with a checkpoint.
 */
import { connectToParent } from '../process/parentLink.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { deviceFailedExitCode } from '../shared/run/crashCard.ts';
import type { TrainOptions } from './AddonTypes.ts';
import { loadAddon } from './loadAddon.ts';
import { requests, toEngineSchema, type FromEngine, type RequestName } from './protocol.ts';
import { claimRun } from './runClaim.ts';
import { serveInference, type ServedInference } from './serveInference.ts';
import { serveTraining, type ServedTraining } from './serveTraining.ts';

const link = connectToParent({ type: 'beat' } satisfies FromEngine);
const send = (message: FromEngine) => link.send(message);

let training: ServedTraining | undefined;
let inference: ServedInference | undefined;

async function answer(id: number, name: string, raw: unknown): Promise<void> {
  try {
    if (!Object.hasOwn(requests, name)) throw new CaravanError('internal', `unknown request ${name}`);
    const request = name as RequestName;
    const params = requests[request].params.parse(raw);
    inference ??= serveInference(loadAddon());
    const result = await inference.answer(request, params as never, {
      text: (text, tokens) => void send({ type: 'token', id, text, tokens }),
      progress: (stage, done, total) => void send({ type: 'progress', id, stage, done, total }),
    });
    await send({ type: 'result', id, result });
  } catch (error) {
    const data = CaravanError.from(error).toData();
    await send({ type: 'error', id, error: data });
    if (data.code === 'device_failed') process.exit(deviceFailedExitCode);
  }
}

async function train(options: TrainOptions, runDir: string | null): Promise<void> {
  try {
    // Where a host cannot know the id of a process that it has just started (Electron), this is the first to claim.
    if (runDir !== null) claimRun(runDir, process.pid);
    training = serveTraining(loadAddon(), options, runDir, send);
    if ((await training.ended) === 'device_failed') process.exit(deviceFailedExitCode);
  } catch (error) {
    const failed = { type: 'failed', error: CaravanError.from(error).toData() } as const;
    await send({ type: 'told', line: 0, told: failed });
  }
  process.exit(0);
}

link.onMessage((raw) => {
  const parsed = toEngineSchema.safeParse(raw);
  if (!parsed.success) {
    process.stderr.write(`a message of the host was not understood: ${parsed.error.message}\n`);
    return;
  }
  const message = parsed.data;
  switch (message.type) {
    case 'request':
      void answer(message.id, message.name, message.params);
      break;
    case 'cancel':
      inference?.cancel(message.answerId);
      break;
    case 'train':
      void train(message.options, message.runDir);
      break;
    case 'recorded':
      training?.recorded(message.line);
      break;
    case 'pause':
      training?.pause();
      break;
    case 'resume':
      training?.resume();
      break;
    case 'stop':
      training?.stop(message.discard);
      break;
  }
});

function end(): void {
  if (training) training.stop(false);
  else process.exit(0);
}
link.onGone(end);
process.on('SIGTERM', end);
