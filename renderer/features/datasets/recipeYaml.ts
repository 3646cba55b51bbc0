/** recipe.yaml as the page reads and writes it. */
import { isNode, LineCounter, parseDocument, stringify } from 'yaml';
import type { ContractErrorData } from '../../../core/shared/contract/errors.ts';
import { recipeSchema } from '../../../core/shared/dataset/recipe.ts';
import type { RecipeDraft } from './recipeDraft.ts';

type Problem = Pick<ContractErrorData, 'message' | 'mend' | 'place'>;

/** What goes without saying is left out. */
const defaults: Record<string, unknown> = { seed: 0, dedup: 'exact', template: 'camelidae', seqLen: 2048 };

export function writeRecipeYaml(draft: RecipeDraft): string {
  const said = Object.entries(draft).filter(
    ([key, value]) =>
      value !== undefined && value !== defaults[key] && !(Array.isArray(value) && value.length === 0),
  );
  const sources = draft.sources.map(({ format, ...source }) => ({
    ...source,
    ...(format !== undefined && format !== 'auto' && { format }),
  }));
  const plain = JSON.parse(JSON.stringify({ ...Object.fromEntries(said), sources })) as Record<
    string,
    unknown
  >;
  return stringify(plain, { lineWidth: 100 });
}

/** @returns the recipe as it stands in the file, its defaults left unsaid; or the first thing wrong with it, and where */
export function readRecipeYaml(text: string, file: string): { draft: RecipeDraft } | { problem: Problem } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const wrong = document.errors[0];
  if (wrong) {
    const { line, col } = lines.linePos(wrong.pos[0]);
    return { problem: { message: `not valid YAML: ${wrong.message}`, place: { file, line, column: col } } };
  }
  const value: unknown = document.toJS();
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return { problem: { message: 'the file holds no recipe', place: { file } } };
  const parsed = recipeSchema.safeParse(value);
  if (parsed.success) return { draft: value as RecipeDraft };
  const issue = parsed.error.issues[0]!;
  const unknown = issue.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
  const path = [...issue.path, ...(unknown === undefined ? [] : [unknown])].filter(
    (key) => typeof key !== 'symbol',
  );
  const position = positionOf(document, path, lines);
  return {
    problem: {
      message: unknown === undefined ? issue.message : `there is no field '${unknown}'`,
      place: { file, ...position, field: path.join('.') },
      mend: 'Mend the file and import it again; nothing was taken over.',
    },
  };
}

/** Of the field, or of the nearest one above it that is there. */
function positionOf(
  document: ReturnType<typeof parseDocument>,
  path: readonly (string | number)[],
  lines: LineCounter,
): { line: number; column: number } | null {
  for (let length = path.length; length > 0; length--) {
    const node = document.getIn(path.slice(0, length), true);
    if (!isNode(node) || !node.range) continue;
    const { line, col } = lines.linePos(node.range[0]);
    return { line, column: col };
  }
  return null;
}

/** The same mix in any terminal of the same home. */
export function writeMixCommand(yaml: string): string {
  return `cat > recipe.yaml <<'END'\n${yaml}END\nnpx caravan mix recipe.yaml`;
}
