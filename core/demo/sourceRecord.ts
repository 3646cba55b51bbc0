import type { Row } from './generate.ts';
import type { Kind } from './problem.ts';

/** A row as SlimOrca has it (ShareGPT); `weight` says whether the turn is trained on, null where it is not said. */
export interface SlimOrcaRecord {
  conversations: { from: 'system' | 'human' | 'gpt'; value: string; weight: number | null }[];
}

/** A row as Magicoder-OSS-Instruct has it. */
export interface MagicoderRecord {
  lang: string;
  raw_index: number;
  index: number;
  problem: string;
  solution: string;
}

/** A row as MetaMathQA has it. */
export interface MetaMathRecord {
  type: string;
  query: string;
  original_question: string;
  response: string;
}

/** Name of the raw file of each kind. */
export const sourceFiles: Readonly<Record<Kind, string>> = {
  general: 'slimorca-like.jsonl',
  code: 'magicoder-like.jsonl',
  math: 'metamathqa-like.jsonl',
};

/**
 * A row in the raw format of its kind's model data set.
 * @param index - the row's position in its file
 */
export function sourceRecord(row: Row, index: number): SlimOrcaRecord | MagicoderRecord | MetaMathRecord {
  switch (row.kind) {
    case 'general':
      return {
        conversations: [
          ...(row.system === undefined ? [] : [{ from: 'system' as const, value: row.system, weight: null }]),
          { from: 'human', value: row.question, weight: 0 },
          { from: 'gpt', value: row.answer, weight: 1 },
        ],
      };
    case 'code':
      return {
        lang: row.language ?? 'python',
        raw_index: index,
        index,
        problem: row.question,
        solution: row.answer,
      };
    case 'math':
      return {
        type: row.type ?? 'GSM_AnsAug',
        query: row.question,
        original_question: row.originalQuestion ?? row.question,
        response: row.answer,
      };
  }
}
