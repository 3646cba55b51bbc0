/** A real data process with a folder of its own, for the tests of one file, and the import of rows into it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createDataProcess, type DataProcess } from '../../core/data/client.ts';

export const memoryLimit = '512MB';

export interface ImportedSource {
  dir: string;
  contentHash: string;
}

export interface TestData {
  dir: string;
  data: DataProcess;
  importFile(file: string, outDir: string): Promise<ImportedSource & { rowsIn: number }>;
  /** Writes the rows as JSON lines below `dir` and imports them, each time as a source of its own or of this name. */
  importRows(rows: readonly object[], name?: string): Promise<ImportedSource & { rowsIn: number }>;
  close(): Promise<void>;
}

export function openTestData(prefix: string): TestData {
  const dir = mkdtempSync(join(tmpdir(), `caravan-${prefix}-`));
  const data = createDataProcess();
  let imports = 0;

  async function importFile(file: string, outDir: string) {
    const { contentHash, rowsIn } = await data.request('importSource', {
      files: [file],
      format: 'auto',
      outDir,
      memoryLimit,
    });
    return { dir: outDir, contentHash, rowsIn };
  }

  return {
    dir,
    data,
    importFile,
    importRows(rows, name = `source-${imports++}`) {
      const file = join(dir, `${name}.jsonl`);
      writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
      return importFile(file, join(dir, name));
    },
    async close() {
      await data.close();
      rmSync(dir, { recursive: true });
    },
  };
}
