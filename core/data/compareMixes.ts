/** Which conversations two mixes share, by source and content. */
import { join } from 'node:path';
import type { MixComparison } from '../shared/dataset/mixExport.ts';
import type { Message } from '../shared/dataset/source.ts';
import { openDatabase, select, sqlString } from './database.ts';
import type { RequestParams, RequestResult } from './protocol.ts';

const examplesShown = 10;

export async function compareMixes({
  from,
  to,
}: RequestParams<'compareMixes'>): Promise<RequestResult<'compareMixes'>> {
  const database = await openDatabase('', '1GB');
  try {
    const { connection } = database;
    const rows = (dir: string) => `read_parquet(${sqlString(join(dir, 'mix.parquet'))})`;
    // One line for each conversation of a source, however often it comes.
    const distinct = (dir: string) =>
      `(SELECT source, hash, min(split) AS split, min("row") AS "row" FROM ${rows(dir)} GROUP BY source, hash)`;
    await connection.run(`CREATE TABLE compared AS SELECT coalesce(a.source, b.source) AS source, a.split AS before, b.split AS after,
        a."row" AS before_row, b."row" AS after_row
      FROM ${distinct(from)} AS a FULL JOIN ${distinct(to)} AS b ON a.source = b.source AND a.hash = b.hash`);
    const sources = await select<MixComparison['sources'][number]>(
      connection,
      `SELECT source AS name, count(*) FILTER (before IS NOT NULL AND after IS NOT NULL) AS both,
         count(*) FILTER (before IS NULL) AS added, count(*) FILTER (after IS NULL) AS removed,
         count(*) FILTER (before <> after) AS "changedSplit" FROM compared GROUP BY source ORDER BY source`,
    );
    const examples = async (dir: string, there: 'before' | 'after', absent: 'before' | 'after') => {
      const found = await select<Omit<MixComparison['added'][number], 'messages'> & { messages: string }>(
        connection,
        `SELECT source, source_row AS "sourceRow", file, line, hash, messages FROM ${rows(dir)}
         WHERE (split, "row") IN (SELECT (${there}, ${there}_row) FROM compared WHERE ${absent} IS NULL
           ORDER BY source, ${there}, ${there}_row LIMIT ${examplesShown})
         ORDER BY source, split, "row"`,
      );
      return found.map((row) => ({ ...row, messages: JSON.parse(row.messages) as Message[] }));
    };
    return {
      sources,
      added: await examples(to, 'after', 'before'),
      removed: await examples(from, 'before', 'after'),
    };
  } finally {
    database.close();
  }
}
