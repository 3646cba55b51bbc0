import { readFile } from 'node:fs/promises';
import type * as z from 'zod';
import { CaravanError } from '../shared/contract/errors.ts';

/** Reads a JSONL file, each line by a schema; blank lines are skipped. @throws `bad_file` naming line and field. */
export async function readJsonl<S extends z.ZodType>(path: string, schema: S): Promise<z.infer<S>[]> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new CaravanError(
      missing ? 'not_found' : 'bad_file',
      missing ? 'there is no such file' : String(error),
      {
        place: { file: path },
      },
    );
  }
  const rows: z.infer<S>[] = [];
  let start = 0;
  for (let line = 1; start < bytes.length; line++) {
    const newline = bytes.indexOf(10, start);
    const end = newline < 0 ? bytes.length : newline;
    const place = { file: path, line };
    let content: string;
    try {
      content = new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(start, end)).trim();
    } catch {
      throw new CaravanError('invalid_utf8', 'the line is not valid UTF-8', { place });
    }
    start = end + 1;
    if (content === '') continue;
    let value: unknown;
    try {
      value = JSON.parse(content);
    } catch (error) {
      throw new CaravanError('bad_file', `not valid JSON: ${(error as Error).message}`, { place });
    }
    const result = schema.safeParse(value);
    if (!result.success) {
      const issue = result.error.issues[0]!;
      throw new CaravanError('bad_file', issue.message, { place: { ...place, field: issue.path.join('.') } });
    }
    rows.push(result.data);
  }
  return rows;
}
