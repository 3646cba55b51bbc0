/**
 * Writes an export beside its place, holds it to the run that it came from, and moves it there: whoever finds the folder
 * finds it whole, with its report.
 */
import { availableParallelism } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { mkdir, open, readdir, rename, rm, rmdir, stat } from 'node:fs/promises';
import { encodeConversations } from '../prompt/encodeConversations.ts';
import { renderJinja } from '../prompt/renderJinja.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { renderTemplate, type TemplateTokens } from '../shared/dataset/template.ts';
import { isAdapterLayout, type ExportRecord, type Parity } from '../shared/model/export.ts';
import type { Addon, AddonTokenizer, ExportOptions } from './AddonTypes.ts';
import { parityConversations } from './parityPrompts.ts';
import { exportOnnx, writeGenerationConfig } from './exportOnnx.ts';
import type { RequestParams } from './protocol.ts';
import { exportedTemplate, writeTokenizerFiles } from './tokenizerFiles.ts';

type Params = RequestParams<'export'>;

export async function exportModel(
  addon: Addon,
  tokenizer: AddonTokenizer,
  params: Params,
  tell: (stage: string, done: number, total: number) => void,
  signal: AbortSignal,
): Promise<ExportRecord> {
  const { layout, model, outDir, tokens, template } = params;
  await checkFree(outDir);
  const partial = join(dirname(outDir), `.${basename(outDir)}.partial`);
  const options = exportOptions(params, tokenizer, partial);
  await addon.planExport(options);
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  try {
    const rows = await encode(tokenizer, template, tokens);
    const { files, parity } =
      layout === 'onnx'
        ? await exportOnnx(addon, options, rows, { tell, signal, bosId: idOf(tokenizer, tokens.bos) })
        : await addon.exportModel(options, rows, (stage, done, total) => {
            tell(stage, done, total);
            return !signal.aborted;
          });
    const written = layout === 'gguf' ? [] : await writeTokenizerFiles(params, partial);
    if (layout === 'onnx') {
      const ends = await writeGenerationConfig(partial, options.eosIds);
      written.splice(0, written.length, ...written.filter(({ name }) => name !== ends.name), ends);
    }
    const prompts = await comparePrompts(addon, tokenizer, params, rows, join(partial, options.ggufFile));
    const record: ExportRecord = {
      schema: 'caravan-export-1',
      run: params.run,
      base: { name: model.baseName, identity: model.baseIdentity },
      layout,
      type: isAdapterLayout(layout) ? null : params.type,
      mergeInto: isAdapterLayout(layout) || !isMerging(params.run?.method) ? null : params.mergeInto,
      template,
      files: [...files, ...written].sort((a, b) => (a.name < b.name ? -1 : 1)),
      notes: notesOf(params),
      parity: { ...parity, prompts, passed: parity.passed && prompts.different === 0 },
    };
    await writeSynced(join(partial, 'export.json'), `${JSON.stringify(record, null, 2)}\n`);
    if (signal.aborted) throw new CaravanError('cancelled', 'the export was cancelled');
    await rmdir(outDir).catch(ignoreAbsent);
    await rename(partial, outDir);
    await syncFolder(dirname(outDir));
    return record;
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}

function exportOptions(params: Params, tokenizer: AddonTokenizer, partial: string): ExportOptions {
  const { model, tokens } = params;
  const eos = idOf(tokenizer, tokens.eos);
  return {
    ...model,
    layout: params.layout,
    type: params.type,
    originalBase: params.mergeInto === 'original',
    outDir: partial,
    shardBytes: params.shardBytes,
    ggufFile: `${params.name}.${params.type.toUpperCase()}.gguf`,
    ggufName: params.name,
    tokenizerPath: params.tokenizerPath,
    chatTemplate: exportedTemplate(params.template, tokens) ?? '',
    eosIds: [...new Set([...(eos === null ? [] : [eos]), ...params.stopIds])],
  };
}

function idOf(tokenizer: AddonTokenizer, token: string | null): number | null {
  return token === null ? null : tokenizer.tokenToId(token);
}

function encode(
  tokenizer: AddonTokenizer,
  template: Params['template'],
  tokens: TemplateTokens,
): Promise<Int32Array[]> {
  const pieces = parityConversations.map((messages) =>
    renderTemplate(template, messages, tokens, renderJinja),
  );
  return encodeConversations(tokenizer, pieces, availableParallelism()).then((rows) =>
    rows.map(({ ids }) => ids),
  );
}

/** The prompts once more, by the template (and for GGUF the tokenizer) that the export carries. */
async function comparePrompts(
  addon: Addon,
  tokenizer: AddonTokenizer,
  params: Params,
  rows: Int32Array[],
  ggufPath: string,
): Promise<Parity['prompts']> {
  const chatTemplate = exportedTemplate(params.template, params.tokens);
  if (chatTemplate === null) return { checked: 0, different: 0 };
  const own = params.layout === 'gguf' ? await addon.openTokenizer(ggufPath) : tokenizer;
  try {
    const again = await encode(own, 'model', { ...params.tokens, chatTemplate });
    const different = rows.filter((ids, index) => ids.join() !== again[index]!.join()).length;
    return { checked: rows.length, different };
  } finally {
    if (own !== tokenizer) own.dispose();
  }
}

function notesOf({ layout, type, model, mergeInto, run }: Params): string[] {
  const notes: string[] = [];
  if (isMerging(run?.method) && !isAdapterLayout(layout) && model.baseDtype === 'nf4')
    notes.push(
      mergeInto === 'trained'
        ? 'LoRA is merged into the dequantised NF4 base that it was trained on.'
        : 'LoRA was trained on an NF4 base and is merged into the base as stored: the loss says how far that is from the run.',
    );
  if (layout === 'onnx' && type === 'int4')
    notes.push(
      'ONNX Runtime multiplies four-bit weights with activations rounded to eight bits: the loss includes that.',
    );
  if (layout === 'camelidae' || layout === 'qwen2idae' || layout === 'sparsetral')
    notes.push('The modelling code comes from the publisher: README.md says from where.');
  return notes;
}

/** Whether the method's exports merge LoRA into a base. */
function isMerging(method: string | undefined): boolean {
  return method === 'lora' || method === 'pesc';
}

async function checkFree(outDir: string): Promise<void> {
  const found = await stat(outDir).catch(ignoreAbsent);
  if (!found) return;
  if (found.isDirectory() && (await readdir(outDir)).length === 0) return;
  throw new CaravanError('bad_option', 'there is something at this place already', {
    place: { file: outDir },
    mend: 'Give a folder that is not there yet, or remove this one.',
  });
}

async function writeSynced(file: string, text: string): Promise<void> {
  const handle = await open(file, 'w');
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A rename must reach the disk; Windows cannot open a folder for that, and needs not. */
async function syncFolder(dir: string): Promise<void> {
  const folder = await open(dir, 'r').catch(() => null);
  await folder?.sync().catch(() => undefined);
  await folder?.close();
}

function ignoreAbsent(error: unknown): null {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  return null;
}
