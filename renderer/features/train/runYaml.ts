/** run.yaml as the page reads and writes it. */
import { LineCounter, parseDocument, stringify } from 'yaml';
import type { ContractErrorData } from '../../../core/shared/contract/errors.ts';
import type { RunConfigInput } from '../../../core/shared/run/runConfig.ts';
import { runDefaults, runFields } from '../../../core/shared/run/runFields.ts';

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
): { values: Record<string, unknown> } | { problem: Pick<ContractErrorData, 'message' | 'mend' | 'place'> } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const wrong = document.errors[0];
  if (wrong) {
    const { line, col } = lines.linePos(wrong.pos[0]);
    return { problem: { message: `not valid YAML: ${wrong.message}`, place: { file, line, column: col } } };
  }
  const values: unknown = document.toJS();
  if (typeof values !== 'object' || values === null || Array.isArray(values))
    return {
      problem: {
        message: 'the file holds no settings',
        mend: 'run.yaml has lines such as model: NAME.',
        place: { file },
      },
    };
  const unknown = Object.keys(values).filter((key) => !(key in runFields));
  if (unknown.length > 0)
    return {
      problem: {
        message: `there is no field ${unknown.map((key) => `'${key}'`).join(', ')}`,
        mend: 'Mend the file and import it again; nothing was taken over.',
        place: { file },
      },
    };
  return { values: values as Record<string, unknown> };
}

/** The run as a command: what the form asks for, in any terminal of the same home. */
export function writeCommand(yaml: string): string {
  return `cat > run.yaml <<'END'\n${yaml}END\nnpx caravan train run.yaml`;
}
