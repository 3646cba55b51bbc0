import { describe, expect, test } from 'vitest';
import { runConfigSchema } from '../../core/shared/run/runConfig.ts';
import { compareConfigs, configRows } from './configDifference.ts';
import { checkpointName } from './runFigures.ts';
import { createSequenceReader, matchesChord, shortcutKeys } from './shortcuts.ts';
import { formatAge, formatEta } from './words.ts';

const press = (key: string, ...held: ('ctrlKey' | 'metaKey' | 'altKey' | 'shiftKey')[]) => ({
  key,
  ctrlKey: held.includes('ctrlKey'),
  metaKey: held.includes('metaKey'),
  altKey: held.includes('altKey'),
  shiftKey: held.includes('shiftKey'),
});

describe('shortcuts', () => {
  test('Mod is Ctrl, on a Mac Command, and no other modifier may be held', () => {
    expect(matchesChord(press('P', 'ctrlKey', 'shiftKey'), 'Mod+Shift+P', false)).toBe(true);
    expect(matchesChord(press('p', 'ctrlKey'), 'Mod+Shift+P', false)).toBe(false);
    expect(matchesChord(press('p', 'ctrlKey', 'altKey'), 'Mod+P', false)).toBe(false);
    expect(matchesChord(press('p', 'metaKey'), 'Mod+P', true)).toBe(true);
    expect(shortcutKeys('Mod+Shift+P', true)).toEqual(['⌘', '⇧', 'P']);
  });
  test('sequences, single keys, and the false start of a sequence', () => {
    const read = createSequenceReader(() => ['G R', 'G H', 'C']);
    expect(read('g', 0)).toBeUndefined();
    expect(read('r', 100)).toBe('G R');
    expect(read('g', 200)).toBeUndefined();
    expect(read('c', 300)).toBe('C');
    expect(read('g', 400)).toBeUndefined();
    expect(read('r', 5000)).toBeUndefined();
    expect(read('x', 5100)).toBeUndefined();
  });
});

test('ages and estimates in words', () => {
  const now = Date.UTC(2026, 5, 20);
  expect([10, 200, 7200, 100_000, 400_000].map((seconds) => formatAge(now - seconds * 1000, now))).toEqual([
    'just now',
    '3 min ago',
    '2 h ago',
    'yesterday',
    '4 d ago',
  ]);
  expect([-5, 9000, 41_000, 700_000, 5_400_000].map(formatEta)).toEqual([
    'less than 10 s',
    'less than 10 s',
    'about 50 s',
    'about 12 min',
    'about 1 h 30 min',
  ]);
});

test('a checkpoint by its last folder', () => {
  expect(checkpointName('/runs/a/checkpoints/step-000120')).toBe('step-000120');
  expect(checkpointName('C:\\runs\\a\\step-000120\\')).toBe('step-000120');
});

describe('configurations', () => {
  test('rows name what differs from the default, and nothing that the method does not use', () => {
    const rows = configRows(runConfigSchema.parse({ model: 'm', mix: 'x', method: 'lora', lr: 5e-5 }));
    expect(rows.filter(({ differs }) => differs).map(({ key, value }) => [key, value])).toEqual([
      ['model', 'm'],
      ['mix', 'x'],
      ['method', 'lora'],
      ['lr', '5e-5'],
    ]);
    expect(rows.some(({ key }) => key === 'numExperts')).toBe(false);
    expect(rows.find(({ key }) => key === 'lr')!.fallback).toBe('2e-4');
  });
  test('compared, a setting that one method does not use differs', () => {
    const rows = compareConfigs([
      runConfigSchema.parse({ model: 'm', mix: 'x' }),
      runConfigSchema.parse({ model: 'm', mix: 'x', method: 'lora' }),
    ]);
    expect(rows.find(({ key }) => key === 'numExperts')).toEqual({
      key: 'numExperts',
      values: ['8', '–'],
      differs: true,
    });
    expect(rows.find(({ key }) => key === 'lr')!.differs).toBe(false);
  });
});
