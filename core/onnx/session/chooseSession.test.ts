import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { OnnxProvider, OnnxProviderName } from '../../shared/model/onnxModel.ts';
import { chooseSession, type TrialSession } from './chooseSession.ts';

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => void vi.useRealTimers());

interface FakeSession extends TrialSession {
  released: boolean;
}

/** A session whose steps take so long, and whose logits are off by so much. */
function session(provider: OnnxProviderName, stepMs: number, off = 0): FakeSession {
  return {
    provider,
    released: false,
    createCache: (capacity) => ({ capacity, length: 0, feeds: {}, fetches: {} }),
    closeCache: () => {},
    read(_cache, ids) {
      vi.advanceTimersByTime(stepMs);
      return Promise.resolve(new Float32Array(ids.length * 4).fill(1 + off));
    },
    release() {
      this.released = true;
      return Promise.resolve();
    },
  };
}

const there = (...names: OnnxProviderName[]): OnnxProvider[] =>
  names.map((name) => ({ name, missing: null }));

async function choose(providers: OnnxProvider[], sessions: FakeSession[]) {
  const opened: string[] = [];
  const chosen = await chooseSession(providers, (name) => {
    opened.push(name);
    const found = sessions.find(({ provider }) => provider === name);
    return found ? Promise.resolve(found) : Promise.reject(new Error('does not open'));
  });
  return { chosen: chosen.provider, opened, released: sessions.filter((each) => each.released) };
}

test('the CPU alone is not measured', async () => {
  const cpu = session('cpu', 1000);
  const providers: OnnxProvider[] = [...there('cpu'), { name: 'webgpu', missing: 'No supported adapters' }];
  expect(await choose(providers, [cpu])).toEqual({ chosen: 'cpu', opened: ['cpu'], released: [] });
});

test('the fastest that gives the same logits has the model, and the others are let go', async () => {
  const [cpu, webgpu, dml] = [session('cpu', 8), session('webgpu', 1), session('dml', 4)];
  const { chosen, released } = await choose(there('cpu', 'dml', 'webgpu'), [cpu, webgpu, dml]);
  expect(chosen).toBe('webgpu');
  expect(released).toEqual([cpu, dml]);
});

test('a slower one, a wrong one and one that does not open leave it to the CPU', async () => {
  const [cpu, slow, wrong] = [session('cpu', 4), session('dml', 12), session('webgpu', 0, 3)];
  const { chosen, opened, released } = await choose(there('cpu', 'dml', 'webgpu', 'coreml'), [
    cpu,
    slow,
    wrong,
  ]);
  expect(chosen).toBe('cpu');
  expect(opened).toEqual(['cpu', 'dml', 'webgpu', 'coreml']);
  expect(released).toEqual([slow, wrong]);
});
