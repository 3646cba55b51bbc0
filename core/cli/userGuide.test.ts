/** The user guide and the README hold to the schemas and verbs that they describe. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { errorCodes } from '../shared/contract/errors.ts';
import { recipeSchema, recipeSourceSchema } from '../shared/dataset/recipe.ts';
import { rejectReasons, sourceFormats } from '../shared/dataset/source.ts';
import { runConfigSchema } from '../shared/run/runConfig.ts';
import { verbs } from './main.ts';

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const guide = read('docs/user-guide.md');

/** Rows of the tables between a heading and the next one: the first cell's names, and the second cell. */
function tableUnder(heading: string): Map<string, string> {
  const section = guide.split(/^## /m).find((part) => part.startsWith(heading));
  const rows = new Map<string, string>();
  for (const [, names, cell] of (section ?? '').matchAll(/^\| (`[^|]*`) \| ([^|]*) \|/gm))
    for (const [, name] of names!.matchAll(/`([^`]+)`/g)) rows.set(name!, cell!.replaceAll('`', '').trim());
  return rows;
}

/** The default of each field: `required` where there must be a value, undefined where there need not be one. */
function defaultsOf(schema: typeof runConfigSchema | typeof recipeSchema): Map<string, string | undefined> {
  return new Map(
    Object.entries(schema.shape).map(([name, field]) => {
      const absent = field.safeParse(undefined);
      if (!absent.success) return [name, 'required'];
      return [name, absent.data === undefined ? undefined : String(absent.data)];
    }),
  );
}

describe.each([
  ['A run: run.yaml', runConfigSchema],
  ['A mix: recipe.yaml', recipeSchema],
] as const)('%s', (heading, schema) => {
  const rows = tableUnder(heading);
  test('names every field with its default', () => {
    for (const [name, value] of defaultsOf(schema)) {
      expect([...rows.keys()], 'fields in the guide').toContain(name);
      const cell = rows.get(name)!;
      if (value === undefined) continue;
      if (Number.isFinite(Number(value))) expect(Number(cell), name).toBe(Number(value));
      // A recipe and its sources both have a name.
      else expect(cell, name).toBe(value);
    }
  });
});

test('the guide names every field of a source and of its filter', () => {
  const rows = tableUnder('A mix: recipe.yaml');
  for (const name of Object.keys(recipeSourceSchema.shape)) expect([...rows.keys()]).toContain(name);
  for (const name of Object.keys(recipeSourceSchema.shape.filter.unwrap().shape))
    expect(rows.get('filter') && guide).toContain(`\`${name}\``);
});

test('the guide names no field of run.yaml that is none', () => {
  for (const name of tableUnder('A run: run.yaml').keys())
    expect(Object.keys(runConfigSchema.shape)).toContain(name);
});

test('the guide names every format and every reason for which a row is set aside', () => {
  for (const name of [...sourceFormats, ...rejectReasons])
    expect([...tableUnder('Your own rows').keys()]).toContain(name);
});

test('guide and README name every exit code', () => {
  const readme = /^Exit codes: .*$/m.exec(read('README.md'))![0];
  for (const code of new Set([0, ...Object.values(errorCodes)])) {
    expect(guide).toMatch(new RegExp(`^\\| ${code} \\| `, 'm'));
    expect(readme).toContain(String(code));
  }
});

test("every verb is in the README's table", () => {
  const named = [...read('README.md').matchAll(/^\| (`(?:\\\||[^|])*`) \|/gm)].flatMap(([, cell]) =>
    [...cell!.matchAll(/`([a-z]+)/g)].map(([, verb]) => verb),
  );
  expect([...new Set(named)].sort()).toEqual(Object.keys(verbs).sort());
});
