import { sourceFormats, type ColumnMapping } from '../../shared/dataset/source.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatCount } from '../../shared/format.ts';
import { followJob } from '../followJob.ts';
import { choice, flag, list, text } from '../options.ts';
import { hubAccess, resolveFile } from '../references.ts';
import type { Verb } from '../Verb.ts';

export const verb: Verb = {
  summary: 'Bring instruction rows into the library.',
  usage:
    'import FILE|hub:OWNER/NAME… [--name NAME] [--format FORMAT] [--map prompt=COLUMN --map answer=COLUMN] [--allow-rejects]',
  help: `--name NAME     what the source is called; by default the file's name
--format FORMAT ${sourceFormats.slice(0, 6).join(', ')},
                ${sourceFormats.slice(6).join(', ')} (default: auto)
--map TO=COLUMN own columns: TO is prompt, answer, system, label (what rows are counted under) or group (rows of one
                value are never parted between training and validation); implies --format mapping
--allow-rejects exit 0 even where rows were set aside

Files are JSONL, JSON arrays, CSV, TSV or Parquet, text ones also as .gz or .zst, told apart by their content; several
files make one source. auto guesses the format from columns and sample rows, and notes how sure it is.
hub:OWNER/NAME[@REVISION][:FILES] downloads a dataset of the hub: its training split, Parquet before JSON lines before CSV;
FILES says which instead (* within a folder, ** across them). caravan hub --help says more.
Every row is kept, or named with file, line, field and reason. Rows that cannot be used are set aside and the others kept;
the exit code is then 2.`,
  options: {
    name: { type: 'string' },
    format: { type: 'string' },
    map: { type: 'string', multiple: true },
    'allow-rejects': { type: 'boolean' },
  },
  async run({ words, options, output, cwd, connect, interrupted }) {
    if (words.length === 0) throw new CaravanError('bad_option', 'a file to import is missing');
    const mapping = parseMapping(list(options, 'map'));
    const format = mapping ? 'mapping' : choice(options, 'format', sourceFormats);
    const name = text(options, 'name');
    const client = await connect();
    const job = await client.call('importSource', {
      files: words.map((file) => resolveFile(cwd, file)),
      ...hubAccess(),
      ...(name !== undefined && { name }),
      ...(format !== undefined && { format }),
      ...(mapping && { mapping }),
    });
    const done = await followJob(client, job, output, interrupted);
    const source = await client.call('getSource', { id: done.subjectId ?? '' });
    const rejects =
      source.rejected === 0 ? [] : await client.call('readSourceRejects', { id: source.id, limit: 1000 });
    output.document({ ...source, rejects });
    output.line(
      `${source.name}: ${formatCount(source.rowsIn)} rows in, ${formatCount(source.rows)} kept, ` +
        `${formatCount(source.rejected)} set aside (format ${source.format})`,
    );
    for (const note of source.notes) output.line(`  note: ${note}`);
    for (const reject of rejects.slice(0, 20))
      output.remark(
        `caravan: ${reject.file}:${reject.line}${reject.field ? `, field ${reject.field}` : ''}: ` +
          `${reject.reason}: ${reject.detail}`,
      );
    if (source.rejected === 0) return 0;
    if (source.rejected > 20)
      output.remark(`  … and ${source.rejected - 20} more; --json lists the first thousand.`);
    if (flag(options, 'allow-rejects')) return 0;
    output.remark('  The other rows are kept. Mend these and import again, or pass --allow-rejects.');
    return 2;
  },
};

const targets = ['prompt', 'answer', 'system', 'label', 'group'] as const;

function parseMapping(pairs: string[]): ColumnMapping | undefined {
  if (pairs.length === 0) return undefined;
  const mapping: Partial<ColumnMapping> = {};
  for (const pair of pairs) {
    const [to, column] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)];
    const target = targets.find((name) => name === to);
    if (!pair.includes('=') || target === undefined || column === '')
      throw new CaravanError(
        'bad_option',
        `--map ${pair} is not of the form TO=COLUMN, where TO is ${targets.join(', ')}`,
      );
    mapping[target] = column;
  }
  const { prompt, answer } = mapping;
  if (prompt === undefined || answer === undefined)
    throw new CaravanError('bad_option', 'a mapping needs both --map prompt=COLUMN and --map answer=COLUMN');
  return { ...mapping, prompt, answer };
}
