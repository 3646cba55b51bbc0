import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { generateRows } from './generate.ts';
import { pretrainDocument } from './pretrainText.ts';
import { writePretrainText } from './writePretrainText.ts';
import { writeSources } from './writeSources.ts';

let dir: string;
beforeEach(() => void (dir = mkdtempSync(join(tmpdir(), 'caravan-demo-'))));
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const linesOf = (file: string): Record<string, unknown>[] =>
  readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

describe('writeSources', () => {
  it('writes the three raw formats, and the same bytes again', () => {
    const options = { seed: 6, rows: { general: 60, code: 20, math: 20 } };
    const written = writeSources(join(dir, 'a'), options);
    const again = writeSources(join(dir, 'b'), options);
    for (const kind of ['general', 'code', 'math'] as const) {
      expect(readFileSync(again[kind].file)).toEqual(readFileSync(written[kind].file));
      expect(linesOf(written[kind].file)).toHaveLength(options.rows[kind]);
      expect(written[kind].rows).toEqual(generateRows(kind, 'train', 6, options.rows[kind]));
    }

    const turns = linesOf(written.general.file).map(
      (line) => line.conversations as { from: string; value: string }[],
    );
    const prompted = turns.filter((conversation) => conversation[0]?.from === 'system').length;
    expect(prompted).toBeGreaterThan(20);
    expect(prompted).toBeLessThan(60);
    for (const conversation of turns) {
      expect(conversation.map((turn) => turn.from).slice(-2)).toEqual(['human', 'gpt']);
      for (const turn of conversation) expect(turn.value).not.toBe('');
    }
    for (const [i, line] of linesOf(written.code.file).entries()) {
      expect(Object.keys(line)).toEqual(['lang', 'raw_index', 'index', 'problem', 'solution']);
      expect(line.lang).toBe(written.code.rows[i]!.language);
    }
    for (const line of linesOf(written.math.file)) {
      expect(Object.keys(line)).toEqual(['type', 'query', 'original_question', 'response']);
      if (line.type === 'GSM_AnsAug') expect(line.query).toBe(line.original_question);
      else expect(line.query).not.toBe(line.original_question);
    }
  });

  it('writes held-out rows that no training file has', () => {
    const train = writeSources(join(dir, 'train'), { seed: 6, rows: 400 });
    const held = writeSources(join(dir, 'held'), { seed: 6, rows: 100, split: 'heldout' });
    for (const kind of ['general', 'code', 'math'] as const) {
      const seen = new Set(train[kind].rows.map((row) => row.question));
      for (const row of held[kind].rows) expect(seen.has(row.question), row.question).toBe(false);
    }
  });
});

describe('writePretrainText', () => {
  it('writes documents as JSON lines; a shard is the same as that part of the whole', () => {
    const whole = join(dir, 'whole.jsonl');
    const part = join(dir, 'part.jsonl');
    const bytes = writePretrainText(whole, 8, 500);
    writePretrainText(part, 8, 100, 300);
    const texts = linesOf(whole).map((line) => line.text as string);
    expect(texts).toHaveLength(500);
    expect(texts[499]).toBe(pretrainDocument(8, 499));
    expect(Buffer.byteLength(texts.join(''))).toBe(bytes);
    expect(readFileSync(part, 'utf8').trimEnd().split('\n')).toEqual(
      readFileSync(whole, 'utf8').trimEnd().split('\n').slice(300, 400),
    );
  });
});
