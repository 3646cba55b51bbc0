import { readFile } from 'node:fs/promises';
import { isNode, LineCounter, parseDocument } from 'yaml';
import type * as z from 'zod';
import { CaravanError, type ErrorCode } from '../shared/contract/errors.ts';

/**
 * Reads a YAML file and parses it by a schema.
 * @throws `code` naming file, line, column and field of the first thing that is wrong, and how many more there are.
 */
export async function readYamlFile<S extends z.ZodType>(
  path: string,
  schema: S,
  code: ErrorCode,
): Promise<z.infer<S>> {
  let source: string;
  try {
    source = new TextDecoder('utf-8', { fatal: true }).decode(await readFile(path));
  } catch (error) {
    if (error instanceof TypeError)
      throw new CaravanError('invalid_utf8', 'the file is not valid UTF-8', { place: { file: path } });
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new CaravanError(
      missing ? 'not_found' : 'bad_file',
      missing ? 'there is no such file' : String(error),
      {
        place: { file: path },
      },
    );
  }
  return parseYaml(source, path, schema, code);
}

export function parseYaml<S extends z.ZodType>(
  source: string,
  file: string,
  schema: S,
  code: ErrorCode,
): z.infer<S> {
  const lines = new LineCounter();
  const document = parseDocument(source, { lineCounter: lines, prettyErrors: false });
  const syntax = document.errors[0];
  if (syntax) {
    const { line, col } = lines.linePos(syntax.pos[0]);
    throw new CaravanError(code, `not valid YAML: ${syntax.message}`, { place: { file, line, column: col } });
  }
  const result = schema.safeParse(document.toJS());
  if (result.success) return result.data;
  const { issues } = result.error;
  const issue = innermost(issues[0]!);
  const path = issue.path.filter((key) => typeof key !== 'symbol');
  // A misspelt field is reported at its own key; a missing one at the mapping that lacks it.
  const unknown = issue.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
  const place = nearestNode(document, unknown === undefined ? path : [...path, unknown]);
  const position = place === undefined ? undefined : lines.linePos(place);
  const field = [...path, ...(unknown === undefined ? [] : [unknown])].join('.');
  const message = unknown === undefined ? issue.message : `there is no field '${unknown}'`;
  const near = unknown === undefined || path.length > 0 ? undefined : nearestName(unknown, fieldsOf(schema));
  throw new CaravanError(code, issues.length > 1 ? `${message} (and ${issues.length - 1} more)` : message, {
    ...(near !== undefined && { mend: `Did you mean ${near}?` }),
    place: {
      file,
      ...(position && { line: position.line, column: position.col }),
      ...(field && { field }),
    },
  });
}

/**
 * Names the line of a field that a service found wrong: it knows the field, the command line knows the file.
 * @returns the error itself where it names a file already, or no field of this one
 */
export async function placeInFile(error: unknown, path: string): Promise<unknown> {
  if (!(error instanceof CaravanError) || error.place?.field === undefined || error.place.file !== undefined)
    return error;
  const { field } = error.place;
  const keys = field.split(/[.[\]]+/).filter((key) => key !== '');
  const lines = new LineCounter();
  const document = parseDocument(await readFile(path, 'utf8').catch(() => ''), { lineCounter: lines });
  const node = nearestNode(
    document,
    keys.map((key) => (/^\d+$/.test(key) ? Number(key) : key)),
  );
  const position = node === undefined ? undefined : lines.linePos(node);
  return new CaravanError(error.code, error.message, {
    place: { file: path, ...(position && { line: position.line, column: position.col }), field },
    ...(error.mend !== undefined && { mend: error.mend }),
    cause: error,
  });
}

function fieldsOf(schema: z.ZodType): string[] {
  return 'shape' in schema ? Object.keys(schema.shape as object) : [];
}

/** The name that differs in at most two letters; undefined where none does. */
function nearestName(name: string, names: readonly string[]): string | undefined {
  const [best] = names
    .map((known) => ({ known, distance: editDistance(name.toLowerCase(), known.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance);
  return best && best.distance <= 2 ? best.known : undefined;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length]!;
}

/** What is wrong inside a union: said by the alternative whose type the value has, if there is one. */
function innermost(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== 'invalid_union') return issue;
  const inner = issue.errors
    .map(([first]) => first)
    .find((first) => first !== undefined && (first.path.length > 0 || first.code === 'unrecognized_keys'));
  return inner ? innermost({ ...inner, path: [...issue.path, ...inner.path] }) : issue;
}

function nearestNode(
  document: ReturnType<typeof parseDocument>,
  path: (string | number)[],
): number | undefined {
  for (let length = path.length; length > 0; length--) {
    const node = document.getIn(path.slice(0, length), true);
    if (isNode(node) && node.range) return node.range[0];
  }
  return isNode(document.contents) ? document.contents.range?.[0] : undefined;
}
