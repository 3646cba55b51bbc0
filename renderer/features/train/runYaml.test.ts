import { expect, test } from 'vitest';
import { readRunYaml, writeCommand, writeRunYaml } from './runYaml.ts';

test('writes what differs from the defaults, and reads it back', () => {
  const yaml = writeRunYaml({ model: 'base', mix: 'sums', lr: 2e-4, loraRank: 8, recompute: true });
  expect(yaml).toBe('model: base\nmix: sums\nloraRank: 8\nrecompute: true\n');
  expect(readRunYaml(yaml, 'run.yaml')).toEqual({
    values: { model: 'base', mix: 'sums', loraRank: 8, recompute: true },
  });
  expect(writeCommand(yaml)).toMatch(
    /^cat > run\.yaml <<'END'\nmodel: base\n[^]*END\nnpx caravan train run\.yaml$/,
  );
});

test.each([
  [
    'model: [',
    { message: expect.stringContaining('not valid YAML'), place: { file: 'f', line: 1, column: 9 } },
  ],
  ['just words', { message: 'the file holds no settings', place: { file: 'f' } }],
  ['modle: x\nlr: 1', { message: "there is no field 'modle'", place: { file: 'f' } }],
])('says what is wrong with %j', (text, problem) => {
  expect(readRunYaml(text, 'f')).toMatchObject({ problem });
});
