/** A YAML file that a person brings or takes along: read as an object, with the place of what is wrong. */
import { LineCounter, parseDocument, type Document } from 'yaml';
import type { ContractErrorData } from '../../core/shared/contract/errors.ts';

export type YamlProblem = Pick<ContractErrorData, 'message' | 'mend' | 'place'>;

/** What the end of each message of a file that does hold YAML says: the form is as it was. */
export const nothingTaken = 'Mend the file and import it again; nothing was taken over.';

/** @param otherwise what is said of a file that holds something else than an object */
export function readYamlObject(
  text: string,
  file: string,
  otherwise: Pick<YamlProblem, 'message' | 'mend'>,
): { value: object; document: Document; lines: LineCounter } | { problem: YamlProblem } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const wrong = document.errors[0];
  if (wrong) {
    const { line, col } = lines.linePos(wrong.pos[0]);
    return { problem: { message: `not valid YAML: ${wrong.message}`, place: { file, line, column: col } } };
  }
  const value: unknown = document.toJS();
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return { problem: { ...otherwise, place: { file } } };
  return { value, document, lines };
}

/** The file that was chosen in an input, which is ready for the next; null where none was. */
export async function takeFile(event: Event): Promise<{ name: string; text: string } | null> {
  const element = event.target as HTMLInputElement;
  const file = element.files?.[0];
  element.value = '';
  return file ? { name: file.name, text: await file.text() } : null;
}

/** Hands a YAML text to the browser as a file to keep. */
export function saveYaml(name: string, text: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'application/yaml' }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
