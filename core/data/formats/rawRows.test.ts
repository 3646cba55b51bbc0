import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { RawRow } from './rawRow.ts';
import { readRawRows } from './rawRows.ts';

const dir = mkdtempSync(join(tmpdir(), 'caravan-raw-'));
afterAll(() => rmSync(dir, { recursive: true }));

async function rowsOf(content: string | Buffer): Promise<RawRow[]> {
  const path = join(dir, `${Math.floor(performance.now() * 1000)}.json`);
  writeFileSync(path, content);
  const rows: RawRow[] = [];
  for await (const row of readRawRows(path)) rows.push(row);
  return rows;
}

function values(rows: RawRow[]): unknown[] {
  return rows.map((row) => ('value' in row.content ? row.content.value : row.content.problem.reason));
}

describe('JSONL', () => {
  test('lines keep their numbers across blank lines, CRLF and a missing last newline', async () => {
    const rows = await rowsOf('{"a":1}\r\n\r\n  \n{"a":2}');
    expect(values(rows)).toEqual([{ a: 1 }, { a: 2 }]);
    expect(rows.map((row) => row.line)).toEqual([1, 4]);
  });

  test('a byte order mark is not part of the first row', async () => {
    expect(values(await rowsOf('\uFEFF{"a":1}\n'))).toEqual([{ a: 1 }]);
  });

  test('a bad line is named and the next one read', async () => {
    const rows = await rowsOf('{"a":1}\n{"a":\n{"a":3}\n');
    expect(values(rows)).toEqual([{ a: 1 }, 'malformed_json', { a: 3 }]);
    expect(rows[1]!.line).toBe(2);
  });

  test('wrong UTF-8 is told with the byte where it breaks', async () => {
    const rows = await rowsOf(
      Buffer.concat([Buffer.from('{"a":"'), Buffer.from([0xc3, 0x28]), Buffer.from('"}\n{"a":2}\n')]),
    );
    expect(values(rows)).toEqual(['invalid_utf8', { a: 2 }]);
    const { content } = rows[0]!;
    expect('problem' in content && content.problem.detail).toContain('byte 8 ');
  });

  test('rows longer than one read arrive whole', async () => {
    const long = 'é'.repeat(1_500_000);
    expect(values(await rowsOf(`{"a":"${long}"}\n{"a":1}\n`))).toEqual([{ a: long }, { a: 1 }]);
  });
});

describe('JSON arrays', () => {
  test('elements are cut outside strings and nesting', async () => {
    const elements = [{ a: '],[{"\\' }, { b: [1, [2, { c: '}' }]] }, 'text', 4, null];
    const rows = await rowsOf(`\n [${elements.map((e) => JSON.stringify(e)).join(' ,\n')}]\n`);
    expect(values(rows)).toEqual(elements);
    expect(rows.map((row) => row.line)).toEqual([1, 2, 3, 4, 5]);
  });

  test('an empty array has no rows', async () => {
    expect(await rowsOf('[ ]')).toEqual([]);
  });

  test('a file cut short keeps what came whole and names the torn element', async () => {
    const whole = JSON.stringify([{ a: 1 }, { a: 2 }, { a: 3 }]);
    for (let length = 1; length < whole.length; length++) {
      const rows = await rowsOf(whole.slice(0, length));
      const complete = [10, 18].filter((end) => length >= end - 1).length;
      const good = rows.filter((row) => 'value' in row.content);
      expect(good.length, `cut at ${length}`).toBe(complete);
      expect(values(rows).at(-1), `cut at ${length}`).toBe('malformed_json');
    }
  });
});
