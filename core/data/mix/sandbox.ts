/**
 * Where users' own SQL runs: a database of its own that can read one source's files and nothing else, whose settings are
 * locked, and that takes one condition over the row. What makes a mix depend on the time or on chance is refused.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { CaravanError } from '../../shared/contract/errors.ts';
import { openInstance, select, sqlString } from '../database.ts';

export interface Sandbox {
  connection: DuckDBConnection;
  close(): void;
}

/** @param threads what runs here judges rows one by one, so that no result depends on it */
export async function openSandbox(
  paths: readonly string[],
  memoryLimit: string,
  threads: number,
): Promise<Sandbox> {
  const instance = await openInstance(':memory:', memoryLimit, threads, {
    preserve_insertion_order: 'false',
    allow_community_extensions: 'false',
  });
  const connection = await instance.connect();
  await connection.run(`SET allowed_paths = [${paths.map(sqlString).join(', ')}]`);
  await connection.run('SET enable_external_access = false');
  return {
    connection,
    close() {
      connection.closeSync();
      instance.closeSync();
    },
  };
}

/** After the tables of ours stand: from here no setting can be changed. */
export async function lock({ connection }: Sandbox): Promise<void> {
  await connection.run('SET lock_configuration = true');
}

/** Functions whose value is not the row's alone. */
const unsteady = new Set([
  'random',
  'setseed',
  'uuid',
  'gen_random_uuid',
  'uuidv4',
  'uuidv7',
  'now',
  'today',
  'current_date',
  'current_time',
  'current_timestamp',
  'get_current_time',
  'get_current_timestamp',
  'current_localtime',
  'current_localtimestamp',
  'transaction_timestamp',
  'localtime',
  'localtimestamp',
  'age',
  'current_setting',
  'getvariable',
  'nextval',
  'currval',
  'txid_current',
  'pg_backend_pid',
  'version',
  'pg_sleep',
  'query',
  'query_table',
]);

interface Parsed {
  error: boolean;
  error_message?: string;
  statements?: { node?: { select_list?: unknown[]; from_table?: { type?: string } } }[];
}

/**
 * @param field of the recipe, for the error
 * @throws `bad_recipe` unless `where` is one condition over the columns of a row
 */
export async function checkCondition({ connection }: Sandbox, where: string, field: string): Promise<void> {
  const refuse = (why: string) =>
    new CaravanError('bad_recipe', `the condition ${JSON.stringify(where.slice(0, 200))} ${why}`, {
      place: { field },
      mend: 'Write one condition over the columns of a row, as it would stand after WHERE: length(answer) > 20.',
    });
  const [row] = await select<{ tree: string }>(
    connection,
    `SELECT json_serialize_sql(${sqlString(`SELECT (${where}\n)`)}) AS tree`,
  );
  const parsed = JSON.parse(row!.tree) as Parsed;
  if (parsed.error) throw refuse(`is not valid SQL: ${parsed.error_message ?? 'it cannot be parsed'}`);
  const [statement, another] = parsed.statements ?? [];
  if (!statement || another) throw refuse('is more than one statement');
  const { select_list: list = [], from_table: from } = statement.node ?? {};
  if (list.length !== 1 || from?.type !== 'EMPTY') throw refuse('is more than a condition');
  const problem = findForbidden(statement);
  if (problem !== null) throw refuse(problem);
}

function findForbidden(node: unknown): string | null {
  if (Array.isArray(node)) {
    for (const one of node) {
      const problem = findForbidden(one);
      if (problem !== null) return problem;
    }
    return null;
  }
  if (typeof node !== 'object' || node === null) return null;
  const { class: kind, function_name: name } = node as { class?: string; function_name?: string };
  if (kind === 'SUBQUERY') return 'holds a query inside it; a condition looks at one row';
  if (kind === 'WINDOW') return 'looks at other rows (a window function); a condition looks at one row';
  if (name !== undefined && unsteady.has(name.toLowerCase()))
    return `uses ${name}(), whose value is not the row's alone`;
  // Words that stand for functions without brackets.
  const { column_names: words } = node as { column_names?: string[] };
  if (kind === 'COLUMN_REF' && words?.length === 1 && unsteady.has(words[0]!.toLowerCase()))
    return `uses ${words[0]}, whose value is not the row's alone`;
  return findForbidden(Object.values(node));
}
