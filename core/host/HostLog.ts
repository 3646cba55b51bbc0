import { appendFileSync, renameSync, statSync } from 'node:fs';

/** A log larger than this begins anew when a host starts; the last one stays beside it. */
const maxLogBytes = 4 * 1024 * 1024;

/**
 * <home>/host.log: what a host did, for the day something went wrong. Written at once and in place: few lines, and the
 * last of them are the ones that matter.
 */
export class HostLog {
  readonly file: string;

  constructor(file: string) {
    this.file = file;
  }

  /** Before a host opens it for its output. */
  rotate(): void {
    try {
      if (statSync(this.file).size > maxLogBytes) renameSync(this.file, `${this.file}.1`);
    } catch {
      // None yet, or held open by another program (Windows): it goes on growing.
    }
  }

  line(text: string): void {
    try {
      appendFileSync(this.file, `${new Date().toISOString()} [${process.pid}] ${text}\n`, { mode: 0o600 });
    } catch {
      // A full disk must not end a host that has runs to save.
    }
  }
}
