import type { CallResult } from '../../shared/contract/contract.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import { formatBytes, formatCount } from '../../shared/format.ts';
import { followJob } from '../followJob.ts';
import { flag, text } from '../options.ts';
import type { Output } from '../Output.ts';
import { hubAccess, resolveReference } from '../references.ts';
import type { Verb } from '../Verb.ts';

const actions = ['add', 'inspect', 'list', 'remove', 'restore'] as const;

export const verb: Verb = {
  summary: 'Add models to the library, list them, or look inside one.',
  usage:
    'model add DIR|FILE|hub:OWNER/NAME [--name NAME] [--copy] | model inspect M | model list [--trash] | model remove M [--delete] | model restore M',
  help: `add      links a Hugging Face folder (config.json, safetensors or pytorch_model.bin, tokenizer.json) or a GGUF file into the library;
         hub:OWNER/NAME[@REVISION][:FILE.gguf] is downloaded first: see caravan hub --help
inspect  architecture, parameters by group, tokenizer; M is a name, a folder or a GGUF file
remove   into the trash, from which restore brings it back; nothing is deleted
--name   what it is called; by default the folder's or file's
--copy   copies it into the home first: it stays when the folder goes
--trash  what lies in the trash
--delete for good: out of the library or the trash, with a copy's files; files that were linked stay`,
  options: {
    name: { type: 'string' },
    copy: { type: 'boolean' },
    trash: { type: 'boolean' },
    delete: { type: 'boolean' },
  },
  async run({ words, options, output, cwd, connect, interrupted }) {
    const [word, reference, extra] = words;
    if (extra !== undefined) throw new CaravanError('bad_option', `did not expect '${extra}'`);
    const action = actions.find((known) => known === word);
    if (action === undefined)
      throw new CaravanError(
        'bad_option',
        `${word === undefined ? 'model' : `model ${word}`}: expected ${actions.join(', ')}`,
      );
    const client = await connect();
    if (action === 'list') {
      const models = await client.call(flag(options, 'trash') ? 'listModelTrash' : 'listModels', {});
      output.document(models);
      output.table(
        ['name', 'family', 'parameters', 'stored', 'size', 'held', 'folder'],
        models.map((m) => [
          m.name,
          m.family,
          formatCount(m.parameters.total),
          m.storedDtypes.join('+'),
          formatBytes(m.fileBytes),
          m.copiedFrom === undefined ? 'linked' : 'copied',
          m.dir,
        ]),
      );
      return 0;
    }
    if (reference === undefined) throw new CaravanError('bad_option', `model ${action}: a model is missing`);
    const model = resolveReference(cwd, reference);
    const named = async (call: 'listModels' | 'listModelTrash') =>
      (await client.call(call, {})).find(({ name, id }) => name === reference || id === reference);
    switch (action) {
      case 'add': {
        const name = text(options, 'name');
        const job = await client.call('addModel', {
          path: model,
          copy: flag(options, 'copy'),
          ...(name !== undefined && { name }),
          ...hubAccess(),
        });
        const done = await followJob(client, job, output, interrupted);
        const added = await client.call('getModel', { id: done.subjectId ?? '' });
        output.document(added);
        output.line(`added ${added.name}`);
        describe(output, added);
        return 0;
      }
      case 'inspect': {
        const found = await client.call('inspectModel', { model });
        output.document(found);
        describe(output, found);
        return 0;
      }
      case 'remove': {
        const forGood = flag(options, 'delete');
        const found = (await named('listModels')) ?? (forGood ? await named('listModelTrash') : undefined);
        if (!found)
          throw new CaravanError('not_found', `there is no model named '${reference}' in the library`);
        await client.call(forGood ? 'removeModel' : 'trashModel', { id: found.id });
        output.document(forGood ? { removed: found.id } : { trashed: found.id });
        output.line(
          !forGood
            ? `${found.name} lies in the trash: caravan model restore ${found.name} brings it back.`
            : found.copiedFrom === undefined
              ? `${found.name} is out of the library; its files are untouched.`
              : `${found.name} and its copy in the home are deleted.`,
        );
        return 0;
      }
      case 'restore': {
        const found = await named('listModelTrash');
        if (!found)
          throw new CaravanError('not_found', `no model named '${reference}' lies in the trash`, {
            mend: 'caravan model list --trash names those that do.',
          });
        const { name } = await client.call('restoreModel', { id: found.id });
        output.document({ restored: found.id, name });
        output.line(
          name === found.name ? `${name} is back in the library.` : `${found.name} is back as ${name}.`,
        );
        return 0;
      }
    }
  },
};

function describe(output: Output, model: CallResult<'inspectModel'>): void {
  const { parameters: p } = model;
  const rows: [string, string][] = [
    ['folder', model.dir],
    ...(model.hub
      ? [
          ['from the hub', `${model.hub.id}@${model.hub.revision}, commit ${model.hub.commit}`] as [
            string,
            string,
          ],
        ]
      : []),
    ['architecture', `${model.architecture} (${model.family})`],
    [
      'shape',
      `${model.numLayers} layers, hidden ${model.hiddenSize}, MLP ${model.intermediateSize}, ` +
        `${model.numHeads} heads of ${model.headDim} (${model.numKvHeads} KV), vocabulary ${model.vocabSize}`,
    ],
    ['longest context', `${model.maxPositions} tokens`],
    [
      'parameters',
      `${formatCount(p.total)}: embedding ${formatCount(p.embedding)}, attention ${formatCount(p.attention)}, ` +
        `MLP ${formatCount(p.mlp)}, norms ${formatCount(p.norms)}, head ${model.tiedEmbeddings ? 'tied' : formatCount(p.head)}`,
    ],
    ...(model.experts
      ? [
          [
            'experts',
            `${model.experts.count}, ${model.experts.topK} a token, ${
              model.experts.adapterDim === null
                ? 'each a whole FFN'
                : `adapters of ${model.experts.adapterDim}, scale ${model.experts.adapterScale}`
            }; ${formatCount(model.experts.parameters)} parameters`,
          ] as [string, string],
        ]
      : []),
    ['files', `${formatBytes(model.fileBytes)} as ${model.storedDtypes.join(', ')}`],
    ['tokens', `BOS ${model.bosToken ?? 'none'}, EOS ${model.eosToken ?? 'none'}`],
    ['chat template', model.hasChatTemplate ? 'its own' : 'none: Camelidae'],
    ['identity', model.identity ?? 'computed when added'],
    ...(model.copiedFrom === undefined ? [] : [['copied from', model.copiedFrom] as [string, string]]),
    ...(model.checks ?? []).map(({ name, passed, found }): [string, string] => [
      `check ${name}`,
      `${passed === null ? '–' : passed ? '✓' : '✗'} ${found}`,
    ]),
  ];
  for (const [label, value] of rows) output.line(`  ${label.padEnd(16)} ${value}`);
}
