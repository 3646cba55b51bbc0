import { dirname } from 'node:path';
import { runConfigSchema, type RunConfig } from '../shared/run/runConfig.ts';
import { resolveReference } from './references.ts';
import { readYamlFile } from './yamlFile.ts';

/** Reads run.yaml; model and mix folders are relative to the file. */
export async function readRunFile(path: string): Promise<RunConfig> {
  const config = await readYamlFile(path, runConfigSchema, 'bad_config');
  const folder = dirname(path);
  return {
    ...config,
    model: resolveReference(folder, config.model),
    mix: resolveReference(folder, config.mix),
  };
}
