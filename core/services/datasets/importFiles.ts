import { createHash, randomUUID } from 'node:crypto';
import { mkdir, rm, stat } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import type { DataProcess } from '../../data/client.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { ColumnMapping, Source, SourceFormat } from '../../shared/dataset/source.ts';
import type { HubOrigin } from '../../shared/hub/hubReference.ts';
import { freeName } from '../../shared/names.ts';
import type { JobContext } from '../jobs/index.ts';
import type { SourceTable } from './datasetTables.ts';

export interface ImportRequest {
  files: string[];
  /** What it is to be called; taken names get a number, unless `exact`. */
  name: string;
  exact: boolean;
  format: SourceFormat;
  mapping: ColumnMapping | undefined;
  /** Where its files were downloaded from. */
  origins: HubOrigin[];
}

/** Enough for DuckDB's sort of a million rows; more spills to disk. */
export const dataMemoryLimit = '1GB';

/** Rows pass through an import one after the other: more memory would not make it faster. */
const importMemoryLimit = '512MB';

export function nameOfFiles(files: readonly string[]): string {
  const name = basename(files[0]!).replace(/\.(gz|zst|zstd)$/i, '');
  const stem = basename(name, extname(name)) || name;
  // Files of one table: train-00000-of-00003.
  return files.length > 1 ? stem.replace(/[-_.]?\d+-of-\d+$/, '') || stem : stem;
}

/** Imports files as one source of the library. */
export async function importFiles(
  request: ImportRequest,
  {
    sources,
    data,
    sourcesDir,
    now,
  }: { sources: SourceTable; data: DataProcess; sourcesDir: string; now: () => number },
  { signal, progress, log }: JobContext,
): Promise<Source> {
  const { files, format, mapping } = request;
  const id = randomUUID();
  const fingerprint = await fingerprintOf(request);
  await mkdir(sourcesDir, { recursive: true });
  const result = await data
    .request(
      'importSource',
      {
        files,
        format,
        ...(mapping && { mapping }),
        outDir: join(sourcesDir, id),
        memoryLimit: importMemoryLimit,
      },
      { signal, onProgress: progress },
    )
    .catch(async (error: unknown) => {
      // A process that was ended in the midst of it could not tidy up.
      await rm(`${join(sourcesDir, id)}.partial`, { recursive: true, force: true });
      throw error;
    });
  if (request.exact) refuseTakenName(sources, request.name);
  const source: Source = {
    ...result,
    id,
    name: freeName(request.name, (name) => sources.find(name) !== null),
    files,
    importedAt: now(),
    ...(mapping && { mapping }),
    ...(request.origins.length > 0 && { hub: request.origins }),
  };
  sources.add(source, fingerprint);
  log(
    `${source.name}: ${source.rowsIn} rows in, ${source.rows} kept, ${source.rejected} set aside (${source.format})`,
  );
  for (const [reason, count] of Object.entries(source.rejectedByReason)) log(`  ${count} ${reason}`);
  for (const note of source.notes) log(`  note: ${note}`);
  return source;
}

export function refuseTakenName(sources: SourceTable, name: string): void {
  if (sources.find(name))
    throw new CaravanError('name_taken', `a source named '${name}' is in the library already`, {
      place: { field: 'name' },
      mend: 'Choose another name with --name, or remove that one.',
    });
}

/** The same files, unchanged, read in the same way. */
export async function fingerprintOf({
  files,
  format,
  mapping,
}: Omit<ImportRequest, 'name' | 'exact' | 'origins'>): Promise<string> {
  const parts = await Promise.all(
    files.map(async (file) => {
      const info = await stat(file).catch(() => null);
      return [file, info?.size, info?.mtimeMs];
    }),
  );
  return createHash('sha256')
    .update(JSON.stringify([parts, format, mapping ?? null]))
    .digest('hex');
}
