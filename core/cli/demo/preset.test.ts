import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { runPresets } from '../../shared/run/presets.ts';

test("the form's demo preset is demo/run.yaml", () => {
  const text = readFileSync(new URL('../../../demo/run.yaml', import.meta.url), 'utf8');
  const { name: _name, model: _model, mix: _mix, seed: _seed, ...config } = parse(text) as Record<string, unknown>;
  expect(runPresets.find(({ id }) => id === 'demo')!.config).toEqual(config);
});
