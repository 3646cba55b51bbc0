import type { OnnxProvider, OnnxProviderName } from '../../shared/model/onnxModel.ts';
import type { GraphSession } from './GraphSession.ts';

/** A short conversation: what a provider is measured and checked by. */
const trialPrompt = Int32Array.of(1, 2, 3, 4, 5, 6, 7, 8);
const trialSteps = 8;
/** Providers round otherwise; a graph that one computes wrong is off by far more. */
const largestDifference = 0.5;

export type TrialSession = Pick<GraphSession, 'provider' | 'read' | 'createCache' | 'closeCache' | 'release'>;

/**
 * The CPU, unless another provider gives the same logits faster: which one is faster depends on the machine, the model and
 * how well a driver does, so it is measured.
 */
export async function chooseSession<S extends TrialSession>(
  providers: readonly OnnxProvider[],
  open: (provider: OnnxProviderName) => Promise<S>,
): Promise<S> {
  let chosen = await open('cpu');
  const others = providers.filter(({ name, missing }) => name !== 'cpu' && missing === null);
  if (others.length === 0) return chosen;
  const onCpu = await runTrial(chosen);
  let fastest = onCpu.ms;
  for (const { name } of others) {
    const session = await open(name).catch(() => null);
    if (!session) continue;
    const trial = await runTrial(session).catch(() => null);
    if (trial && trial.ms < fastest && areAlike(trial.logits, onCpu.logits)) {
      await chosen.release();
      chosen = session;
      fastest = trial.ms;
    } else await session.release();
  }
  return chosen;
}

async function runTrial(session: TrialSession): Promise<{ ms: number; logits: Float32Array }> {
  const cache = session.createCache(trialPrompt.length + 1 + trialSteps);
  try {
    const logits = (await session.read(cache, trialPrompt)).slice();
    await session.read(cache, Int32Array.of(9));
    const began = performance.now();
    for (let step = 0; step < trialSteps; step++) await session.read(cache, Int32Array.of(10 + step));
    return { ms: performance.now() - began, logits };
  } finally {
    session.closeCache(cache);
  }
}

function areAlike(a: Float32Array, b: Float32Array): boolean {
  return a.length === b.length && a.every((value, index) => Math.abs(value - b[index]!) <= largestDifference);
}
