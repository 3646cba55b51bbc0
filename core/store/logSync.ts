import { open as openFile, type FileHandle } from 'node:fs/promises';

/** Brings SQLite's write-ahead log to the disk without keeping this thread waiting. */
export interface LogSync {
  /** What is in the log now will be on the disk soon; requests during a sync share the next one. */
  request(): void;
  /** After everything asked for. */
  close(): Promise<void>;
}

/** @param file the log; it is made by the first write and stays the same file as long as the database is open */
export function createLogSync(
  file: string,
  open: (file: string, flags: string) => Promise<FileHandle> = openFile,
): LogSync {
  let handle: FileHandle | null = null;
  let running: Promise<void> | null = null;
  let again = false;

  async function sync(): Promise<void> {
    do {
      again = false;
      try {
        // Windows flushes no file that is open for reading alone.
        handle ??= await open(file, 'r+');
        await handle.datasync();
      } catch {
        // A disk in trouble fails SQLite's own writes, which are heard.
      }
    } while (again);
    running = null;
  }

  return {
    request() {
      if (running) again = true;
      else running = sync();
    },
    async close() {
      await running;
      await handle?.close();
      handle = null;
    },
  };
}
