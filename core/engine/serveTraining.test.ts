import { afterEach, expect, test, vi } from 'vitest';
import { CaravanError } from '../shared/contract/errors.ts';
import type { Addon, AddonTrainer, TrainListener, TrainOptions } from './AddonTypes.ts';
import type { FromEngine } from './protocol.ts';
import { serveTraining } from './serveTraining.ts';

afterEach(() => vi.restoreAllMocks());

/** A run whose trainer fails after one phase. */
function serve(error: Error, sent: FromEngine[]) {
  const addon = {
    createTrainer: (_: TrainOptions, listener: TrainListener) =>
      ({
        start() {
          listener.onPhase('training');
          return Promise.reject(error);
        },
      }) as unknown as AddonTrainer,
  } as unknown as Addon;
  return serveTraining(addon, { device: 'cuda:1' } as TrainOptions, null, (message) => {
    sent.push(message);
    return Promise.resolve();
  });
}

test('a GPU that failed ends the process: it is written, with the device, and not told as the end of a run', async () => {
  const written = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  const sent: FromEngine[] = [];
  const fault = Object.assign(new Error('attention_backward: CUDA says cudaErrorIllegalAddress'), {
    code: 'device_failed',
  });
  expect(await serve(fault, sent).ended).toBe('device_failed');
  expect(sent.map((message) => (message.type === 'told' ? message.told.type : message.type))).toEqual([
    'phase',
  ]);
  expect(written).toHaveBeenCalledWith(
    'error: cuda:1: attention_backward: CUDA says cudaErrorIllegalAddress\n',
  );
});

test('any other failure is told', async () => {
  const sent: FromEngine[] = [];
  expect(await serve(new CaravanError('out_of_memory', 'why'), sent).ended).toBe('told');
  expect(sent.at(-1)).toMatchObject({ told: { type: 'failed', error: { code: 'out_of_memory' } } });
});
