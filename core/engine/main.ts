/**
 * Entry of an engine process: loads the addon and serves one host. Asked to train, it lives for that run alone; else it
 * answers, scores and plans. A training run outlives its terminal and its window, but not its host: without it, it stops
 * with a checkpoint.
 */
import { connectToParent } from '../process/parentLink.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { loadAddon } from './loadAddon.ts';
import { requests, toEngineSchema, type FromEngine, type RequestName } from './protocol.ts';
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
    const result = await inference.answer(request, params as never, (text, tokens) => {
      void send({ type: 'token', id, text, tokens });
    });
    await send({ type: 'result', id, result });
  } catch (error) {
    await send({ type: 'error', id, error: CaravanError.from(error).toData() });
  }
}

async function train(options: Parameters<typeof serveTraining>[1]): Promise<void> {
  try {
    training = serveTraining(loadAddon(), options, send);
    await training.ended;
  } catch (error) {
    await send({ type: 'failed', error: CaravanError.from(error).toData() });
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
      void train(message.options);
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
