/** recipe.yaml as the page reads and writes it. */
import { isNode, stringify, type Document, type LineCounter } from 'yaml';
import { recipeSchema } from '../../../core/shared/dataset/recipe.ts';
import { nothingTaken, readYamlObject, type YamlProblem } from '../../composables/yamlFile.ts';
import type { RecipeDraft } from './recipeDraft.ts';

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
export function readRecipeYaml(
  text: string,
  file: string,
): { draft: RecipeDraft } | { problem: YamlProblem } {
  const read = readYamlObject(text, file, { message: 'the file holds no recipe' });
  if ('problem' in read) return read;
  const { value, document, lines } = read;
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
      mend: nothingTaken,
    },
  };
}

/** Of the field, or of the nearest one above it that is there. */
function positionOf(
  document: Document,
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
