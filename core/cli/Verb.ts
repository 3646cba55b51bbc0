import type { ParseArgsOptionsConfig } from 'node:util';
import type { Client } from '../shared/contract/client.ts';
import type { Output } from './Output.ts';

/** What a verb gets to work with. */
export interface VerbContext {
  /** Words after the verb that are not options. */
  words: string[];
  /** Parsed options; strings unless declared boolean. */
  options: Record<string, string | boolean | string[] | undefined>;
  output: Output;
  /** Folder that relative paths start from. */
  cwd: string;
  /** Reaches the home's live host, or starts one; the same client for the whole verb. */
  connect(): Promise<Client>;
  /** Aborted at the first Ctrl-C; a second one ends the process. */
  interrupted: AbortSignal;
}

/** One file per verb exports one of these. `run` returns the exit code. */
export interface Verb {
  summary: string;
  /** Shown by `--help`, first line after "caravan ". */
  usage: string;
  /** Further lines of help: options with their meaning and default. */
  help: string;
  options: ParseArgsOptionsConfig;
  run(context: VerbContext): Promise<number>;
}
