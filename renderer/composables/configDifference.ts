import { runConfigSchema, type RunConfig } from '../../core/shared/run/runConfig.ts';
import { unusedFields, type RunKey } from '../../core/shared/run/runFields.ts';

export interface ConfigRow {
  key: string;
  value: string;
  /** What the schema sets where run.yaml says nothing; null where it has no default. */
  fallback: string | null;
  differs: boolean;
}

/** A run's settings in the order of the schema, each beside its default. */
export function configRows(config: RunConfig): ConfigRow[] {
  const defaults: Record<string, unknown> = runConfigSchema.parse({ model: '-', mix: '-' });
  const given: Record<string, unknown> = config;
  return Object.keys(runConfigSchema.shape)
    .filter((key) => key !== 'name' && !unusedFields[config.method].includes(key as RunKey))
    .map((key) => {
      const fallback = key === 'model' || key === 'mix' ? null : defaults[key];
      return {
        key,
        value: showSetting(given[key]),
        fallback: fallback === null ? null : showSetting(fallback),
        differs: fallback === null || given[key] !== fallback,
      };
    });
}

export interface ComparedRow {
  key: string;
  values: string[];
  differs: boolean;
}

/** Several runs' settings beside each other. */
export function compareConfigs(configs: readonly RunConfig[]): ComparedRow[] {
  return Object.keys(runConfigSchema.shape)
    .filter((key) => key !== 'name')
    .map((key) => {
      const values = configs.map((config) =>
        unusedFields[config.method].includes(key as RunKey)
          ? '–'
          : showSetting((config as Record<string, unknown>)[key]),
      );
      return { key, values, differs: new Set(values).size > 1 };
    });
}

export function showSetting(value: unknown): string {
  if (value === undefined) return '–';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'number' && value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6))
    return value.toExponential().replace('e+', 'e');
  return String(value);
}
