import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needs } from '../../tests/support/skip.ts';
import { writeSafetensors, writeTinyModel, writeTinyShard } from '../../tests/support/tinyModel.ts';
import type { Addon, Progress, TokenShard } from './AddonTypes.ts';
import { loadAddon } from './loadAddon.ts';

const bad = (field: string) =>
  expect.objectContaining({ code: 'bad_option', message: expect.stringContaining(field) as string });

describe.runIf(needs('addon'))('the addon reads and writes files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'caravan-files-'));
  let addon: Addon;
  let model: string;
  beforeAll(() => {
    addon = loadAddon();
    model = writeTinyModel(join(folder, 'model'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test('says what it is and what it runs on', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    const build = addon.buildInfo();
    expect(build).toMatchObject({ version, cuda: (await addon.cudaStatus()).built });
    expect(build.buildId).toMatch(/^[0-9a-f]{16}$/);
    expect(build.simd.built).toContain(build.simd.used);
    const [cpu] = await addon.devices();
    expect(cpu).toMatchObject({ kind: 'cpu' });
    expect(cpu!.units).toBeGreaterThan(0);
    expect(cpu!.freeMemoryBytes).toBeGreaterThan(0);
    expect(cpu!.totalMemoryBytes).toBeGreaterThanOrEqual(cpu!.freeMemoryBytes!);
  });

  test('hashes a file as SHA-256', async () => {
    const path = join(folder, 'file');
    const bytes = Buffer.from(Array.from({ length: 100_003 }, (_, i) => (i * 31) & 255));
    writeFileSync(path, bytes);
    expect(await addon.hashFile(path)).toBe(createHash('sha256').update(bytes).digest('hex'));
    await expect(addon.hashFile(join(folder, 'absent'))).rejects.toMatchObject({ code: 'bad_file' });
    await expect(addon.hashFile(7 as never)).rejects.toEqual(bad('path'));
  });

  test('knows a model by its tensors, however they are cut into files', async () => {
    const a = { shape: [2, 2], values: Float32Array.of(1, 2, 3, 4) };
    const b = { shape: [3], values: Float32Array.of(5, 6, 7) };
    const whole = join(folder, 'whole');
    const cut = join(folder, 'cut');
    const other = join(folder, 'other');
    for (const dir of [whole, cut, other]) mkdirSync(dir);
    writeSafetensors(join(whole, 'model.safetensors'), { a, b });
    writeSafetensors(join(cut, 'model-1.safetensors'), { b });
    writeSafetensors(join(cut, 'model-2.safetensors'), { a });
    writeFileSync(
      join(cut, 'model.safetensors.index.json'),
      JSON.stringify({ weight_map: { a: 'model-2.safetensors', b: 'model-1.safetensors' } }),
    );
    writeSafetensors(join(other, 'model.safetensors'), { a: { ...a, shape: [4] }, b });
    const seen: Progress[] = [];
    const identity = await addon.hashModel(whole, (progress) => seen.push(progress));
    const expected = createHash('sha256');
    for (const [heading, { values }] of [
      ['1:a F32 2 2\n', a],
      ['1:b F32 3\n', b],
    ] as const)
      expected.update(heading).update(Buffer.from(values.buffer));
    expect(identity).toBe(expected.digest('hex'));
    expect(seen.at(-1)).toEqual({ done: 28, total: 28, unit: 'bytes' });
    expect(await addon.hashModel(cut)).toBe(identity);
    expect(await addon.hashModel(other)).not.toBe(identity);
    await expect(addon.hashModel(folder)).rejects.toMatchObject({ code: 'bad_file' });
    await expect(addon.hashModel(whole, 5 as never)).rejects.toEqual(bad('onProgress'));
  });

  test('summarises a model by its headers', async () => {
    const summary = await addon.inspectModel(model);
    expect(summary).toMatchObject({
      architecture: 'LlamaForCausalLM',
      family: 'llama',
      hiddenSize: 32,
      numLayers: 2,
      numKvHeads: 2,
      vocabSize: 4096,
      tiedEmbeddings: true,
      ropeScaling: null,
      slidingWindow: null,
      storedDtypes: ['F32'],
    });
    const attention = 2 * (32 * 32 * 2 + 16 * 32 * 2);
    const mlp = 2 * 3 * 32 * 48;
    const norms = 5 * 32;
    expect(summary.parameters).toEqual({
      embedding: 4096 * 32,
      attention,
      mlp,
      norms,
      head: 0,
      total: 4096 * 32 + attention + mlp + norms,
    });
    const { tensors } = await addon.inspectSafetensors(join(model, 'model.safetensors'));
    expect(tensors).toHaveLength(20);
    expect(tensors.find(({ name }) => name === 'model.norm.weight')).toEqual({
      name: 'model.norm.weight',
      dtype: 'F32',
      shape: [32],
    });
  });

  const shard = (): TokenShard => ({
    ids: Int32Array.of(5, 6, 7, 8, 9),
    offsets: Float64Array.of(0, 2, 5),
    targets: Uint8Array.of(0, 1, 0, 1, 1),
    source: Int32Array.of(1, 0),
    sources: ['one', 'two'],
    metadata: { tokenizer: 'abc' },
  });

  test('brings a token shard back as it was, in the same bytes each time', async () => {
    const path = join(folder, 'a.safetensors');
    await addon.writeTokenShard(path, shard());
    await addon.writeTokenShard(join(folder, 'b.safetensors'), shard());
    expect(readFileSync(path)).toEqual(readFileSync(join(folder, 'b.safetensors')));
    const info = await addon.readTokenShardInfo(path);
    expect(info).toMatchObject({ rows: 2, tokens: 5, targetTokens: 3, longestRow: 3 });
    expect(info.sources).toEqual([
      { name: 'one', rows: 1, tokens: 3, targetTokens: 2 },
      { name: 'two', rows: 1, tokens: 2, targetTokens: 1 },
    ]);
    expect(info.metadata).toMatchObject({ tokenizer: 'abc' });
    expect(await addon.readTokenShardRows(path, [1, 0])).toEqual([
      { row: 1, source: 'one', ids: Int32Array.of(7, 8, 9), targets: Uint8Array.of(0, 1, 1) },
      { row: 0, source: 'two', ids: Int32Array.of(5, 6), targets: Uint8Array.of(0, 1) },
    ]);
    await expect(addon.readTokenShardRows(path, [2])).rejects.toEqual(bad('2 rows'));
  });

  test('refuses every wrong field of a shard by its name', async () => {
    const write = (change: Record<string, unknown>) =>
      addon.writeTokenShard(join(folder, 'never'), { ...shard(), ...change } as TokenShard);
    const wrong: [string, unknown][] = [
      ['ids', [1, 2]],
      ['ids', Int32Array.of(1)],
      ['offsets', Int32Array.of(0, 2, 5)],
      ['offsets', Float64Array.of(0, 5, 2)],
      ['offsets', Float64Array.of(1, 2, 5)],
      ['offsets', Float64Array.of(0, 2.5, 5)],
      ['offsets', Float64Array.of(0, NaN, 5)],
      ['targets', Uint8Array.of(1)],
      ['source', Int32Array.of(0, 2)],
      ['source', Int32Array.of(0)],
      ['sources', 'one'],
      ['metadata', { a: 1 }],
      ['extra', 1],
    ];
    for (const [field, value] of wrong)
      await expect(write({ [field]: value }), field).rejects.toEqual(
        // A wrong length of ids shows in the offsets that should cover them.
        bad(field === 'ids' && value instanceof Int32Array ? 'offsets' : field),
      );
    for (const field of Object.keys(shard()))
      await expect(write({ [field]: undefined }), field).rejects.toEqual(bad(`${field} is missing`));
  });

  test('orders rows by seed and epoch alone', async () => {
    const order = addon.rowOrder(3, 0, 100);
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
    expect(addon.rowOrder(3, 0, 100)).toEqual(order);
    expect(addon.rowOrder(3, 1, 100)).not.toEqual(order);
    expect(addon.rowOrder(4, 0, 100)).not.toEqual(order);
    expect(() => addon.rowOrder(-1, 0, 1)).toThrow(bad('seed'));
    expect(() => addon.rowOrder(1, 0.5, 1)).toThrow(bad('epoch'));
    expect(() => addon.rowOrder(1, 0, '7' as never)).toThrow(bad('rows'));
    await writeTinyShard(addon, join(folder, 'tiny.safetensors'), 5);
    expect((await addon.readTokenShardInfo(join(folder, 'tiny.safetensors'))).rows).toBe(5);
  });
});
