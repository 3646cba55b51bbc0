/** Which files of a repository are needed. Pure. */
import { CaravanError } from '../shared/contract/errors.ts';
import { formatHubReference, type HubKind, type HubReference } from '../shared/hub/hubReference.ts';

export interface Choice<F> {
  files: F[];
  /** What stays there, and why, in words. */
  leftOut: string[];
}

/** What a model is read by, beside its weights. */
const modelFiles = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'chat_template.json',
];

/** Weights in the order in which they are preferred: an index and its shards, or one file. */
const weightLayouts = [
  {
    index: 'model.safetensors.index.json',
    shard: /^model-\d+-of-\d+\.safetensors$/,
    single: 'model.safetensors',
  },
  {
    index: 'pytorch_model.bin.index.json',
    shard: /^pytorch_model-\d+-of-\d+\.bin$/,
    single: 'pytorch_model.bin',
  },
];

/** Dataset files in the order in which they are preferred. */
const dataKinds = [
  { name: 'Parquet', ending: /\.parquet$/i },
  { name: 'JSON lines', ending: /\.(jsonl|ndjson)(\.gz|\.zst|\.zstd)?$/i },
  { name: 'CSV', ending: /\.(csv|tsv)(\.gz|\.zst|\.zstd)?$/i },
  { name: 'JSON', ending: /\.json(\.gz|\.zst|\.zstd)?$/i },
];

/** JSON that describes a repository and holds no rows. */
const noRows =
  /(^|\/)(dataset_infos?|config|state|dataset_dict|tokenizer|tokenizer_config|special_tokens_map)\.json$/i;

/** @throws `not_found` or `bad_option`, saying what is there instead and how to choose */
export function chooseFiles<F extends { path: string }>(
  kind: HubKind,
  reference: HubReference,
  all: readonly F[],
): Choice<F> {
  if (reference.files !== null) return chooseByPattern(kind, reference, reference.files, all);
  return kind === 'model' ? chooseModel(reference, all) : chooseDataset(reference, all);
}

function chooseByPattern<F extends { path: string }>(
  kind: HubKind,
  reference: HubReference,
  pattern: string,
  all: readonly F[],
): Choice<F> {
  const matches = patternTest(pattern);
  const files = all.filter(({ path }) => matches(path));
  if (files.length === 0)
    throw new CaravanError('not_found', `${reference.id} has no file '${pattern}'`, {
      mend: `It has ${listed(all)}.`,
    });
  if (kind === 'model') {
    const [one, two] = files;
    if (!/\.gguf$/i.test(one!.path) || two)
      throw new CaravanError(
        'bad_option',
        `behind the colon of a model stands one GGUF file, not ${two ? `${files.length} files` : one!.path}`,
        { mend: 'Name one GGUF file, or leave the colon out to get the whole model.' },
      );
  }
  return { files, leftOut: restOf(all, files) };
}

function chooseModel<F extends { path: string }>(reference: HubReference, all: readonly F[]): Choice<F> {
  const named = new Map(all.map((file) => [file.path, file]));
  const ggufs = all.filter(({ path }) => /\.gguf$/i.test(path));
  for (const { index, shard, single } of weightLayouts) {
    const indexFile = named.get(index);
    const shards = all.filter(({ path }) => shard.test(path));
    const whole = named.get(single);
    const weights = indexFile && shards.length > 0 ? [indexFile, ...shards] : whole ? [whole] : null;
    if (!weights) continue;
    for (const needed of ['config.json', 'tokenizer.json'])
      if (!named.has(needed))
        throw new CaravanError('unsupported_architecture', `${reference.id} has no ${needed}`, {
          mend:
            needed === 'config.json'
              ? 'Choose a repository in the layout of transformers.'
              : 'Choose a revision or repository that has one; transformers writes it with a fast tokenizer.',
        });
    const files = [...modelFiles.flatMap((name) => named.get(name) ?? []), ...weights];
    return { files, leftOut: restOf(all, files) };
  }
  if (ggufs.length === 1) return { files: ggufs, leftOut: restOf(all, ggufs) };
  if (ggufs.length > 1)
    throw new CaravanError('bad_option', `${reference.id} has ${ggufs.length} GGUF files`, {
      mend: `Say which: ${formatHubReference({ ...reference, files: ggufs[0]!.path })}. There are ${listed(ggufs)}.`,
    });
  throw new CaravanError(
    'unsupported_architecture',
    `${reference.id} has no weights that Caravan reads (safetensors, pytorch_model.bin or GGUF)`,
    { mend: `It has ${listed(all)}.` },
  );
}

function chooseDataset<F extends { path: string }>(reference: HubReference, all: readonly F[]): Choice<F> {
  const kinds = dataKinds.map(({ name, ending }) => ({
    name,
    files: all.filter(({ path }) => ending.test(path) && !noRows.test(path)),
  }));
  const chosen = kinds.find(({ files }) => files.length > 0);
  if (!chosen)
    throw new CaravanError('not_found', `${reference.id} has no Parquet, JSON lines, CSV or JSON file`, {
      mend: `It has ${listed(all)}.`,
    });
  // What is tested with must not be trained on because a repository holds both.
  const train = chosen.files.filter(({ path }) => splitOf(path) === 'train');
  const unnamed = chosen.files.filter(({ path }) => splitOf(path) === null);
  const files = train.length > 0 ? train : unnamed;
  if (files.length === 0)
    throw new CaravanError('bad_option', `${reference.id} has no training split`, {
      mend: `Say which files you mean: ${formatHubReference({ ...reference, files: chosen.files[0]!.path })}. There are ${listed(chosen.files)}.`,
    });
  const folders = [...new Set(files.map(({ path }) => folderOf(path)))];
  if (folders.length > 1)
    throw new CaravanError(
      'bad_option',
      `${reference.id} has files in ${folders.length} folders, which may be different datasets: ${clipped(folders)}`,
      {
        mend: `Say which: ${formatHubReference({ ...reference, files: `${folders[0] === '' ? '' : `${folders[0]}/`}*` })}, or :** for all.`,
      },
    );
  return { files, leftOut: restOf(all, files) };
}

/** The part of a dataset that a file is by its name; null where it says nothing. */
export function splitOf(path: string): 'train' | 'test' | 'validation' | null {
  const words = path.toLowerCase().split(/[^a-z]+/);
  for (const word of words.reverse()) {
    if (word === 'train' || word === 'training') return 'train';
    if (word === 'test' || word === 'testing') return 'test';
    if (/^(val|valid|validation|dev|eval|evaluation)$/.test(word)) return 'validation';
  }
  return null;
}

/** `*` for anything within a folder or name, `**` across folders; a pattern ending in `/` means all below it. */
export function patternTest(pattern: string): (path: string) => boolean {
  const whole = pattern.endsWith('/') ? `${pattern}**` : pattern;
  const source = whole
    .split(/(\*\*\/?|\*)/)
    .map((part) =>
      part.startsWith('**')
        ? part === '**/'
          ? '(?:.*/)?'
          : '.*'
        : part === '*'
          ? '[^/]*'
          : part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'),
    )
    .join('');
  const expression = new RegExp(`^${source}$`, 's');
  return (path) => expression.test(path);
}

function folderOf(path: string): string {
  return path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : '';
}

function restOf<F extends { path: string }>(all: readonly F[], chosen: readonly F[]): string[] {
  const taken = new Set<F>(chosen);
  const rest = all.filter((file) => !taken.has(file));
  return rest.length === 0
    ? []
    : [`${rest.length} other ${rest.length === 1 ? 'file' : 'files'} not needed: ${listed(rest)}`];
}

function listed(files: readonly { path: string }[]): string {
  return files.length === 0 ? 'no files' : clipped(files.map(({ path }) => path));
}

function clipped(names: readonly string[]): string {
  const shown = names.slice(0, 8).map((name) => (name === '' ? '(top)' : name.slice(0, 120)));
  return `${shown.join(', ')}${names.length > shown.length ? ` and ${names.length - shown.length} more` : ''}`;
}
