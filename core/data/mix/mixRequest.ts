import type { ContaminationCount } from '../../shared/dataset/decontamination.ts';
import type { Recipe } from '../../shared/dataset/recipe.ts';
import type { TemplateTokens } from '../../shared/dataset/template.ts';
import type { SourceFolder } from './rowTable.ts';

export interface MixRequest {
  recipe: Recipe;
  /** One per source of the recipe, in its order. */
  sources: SourceFolder[];
  /** Absolute files of each benchmark that the recipe names. */
  benchmarks: string[][];
  /** Null: the mix holds text alone. */
  tokenizer: { path: string; hash: string; modelName: string; tokens: TemplateTokens } | null;
  /** Must not exist, or be an earlier mix. */
  outDir: string;
  memoryLimit: string;
  threads: number;
}

export interface MixResult {
  rows: number;
  validationRows: number;
  tokens: number | null;
  targetTokens: number | null;
  sources: {
    name: string;
    rowsIn: number;
    rows: number;
    /** Of `rows`, those that come again; absent: none. */
    repeatedRows?: number | undefined;
    validationRows: number;
    tokens: number | null;
    targetTokens: number | null;
    rejectedByReason: Record<string, number>;
  }[];
  /** Absent where the recipe names no benchmark. */
  contamination?: ContaminationCount[] | undefined;
  contentHash: string;
}
