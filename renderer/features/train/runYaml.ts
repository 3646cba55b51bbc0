/** run.yaml as the page reads and writes it. */
import { stringify } from 'yaml';
import type { RunConfigInput } from '../../../core/shared/run/runConfig.ts';
import { runDefaults, runFields } from '../../../core/shared/run/runFields.ts';
import { nothingTaken, readYamlObject, type YamlProblem } from '../../composables/yamlFile.ts';

/** What run.yaml must say for this run: defaults are left out, the order is that of the form. */
export function writeRunYaml(input: Partial<RunConfigInput>): string {
  const defaults: Record<string, unknown> = runDefaults();
  const given: Record<string, unknown> = input;
  const said = Object.keys(runFields)
    .filter((key) => given[key] !== undefined && given[key] !== defaults[key])
    .map((key) => [key, given[key]]);
  return said.length === 0 ? '' : stringify(Object.fromEntries(said));
}

/** Values are taken as they stand; whether each is in its range is the form's to show. */
export function readRunYaml(
  text: string,
  file: string,
): { values: Record<string, unknown> } | { problem: YamlProblem } {
  const read = readYamlObject(text, file, {
    message: 'the file holds no settings',
    mend: 'run.yaml has lines such as model: NAME.',
  });
  if ('problem' in read) return read;
  const values = read.value;
  const unknown = Object.keys(values).filter((key) => !(key in runFields));
  if (unknown.length > 0)
    return {
      problem: {
        message: `there is no field ${unknown.map((key) => `'${key}'`).join(', ')}`,
        mend: nothingTaken,
        place: { file },
      },
    };
  return { values: values as Record<string, unknown> };
}

/** The run as a command: what the form asks for, in any terminal of the same home. */
export function writeCommand(yaml: string): string {
  return `cat > run.yaml <<'END'\n${yaml}END\nnpx caravan train run.yaml`;
}
