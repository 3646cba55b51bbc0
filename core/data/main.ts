/**
 * Entry of the data process: DuckDB, foreign files and the addon's CPU side, away from the host. It answers requests one
 * after the other of the heavy kinds and ends with its host.
 */
import type { AddonTokenizer } from '../engine/AddonTypes.ts';
import { loadAddon } from '../engine/loadAddon.ts';
import { connectToParent } from '../process/parentLink.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import { inspectBenchmark } from './benchmarks/inspectBenchmark.ts';
import { buildMix } from './buildMix.ts';
import { compareMixes } from './compareMixes.ts';
import { isOnnxFolder } from '../onnx/format/isOnnxFolder.ts';
import { exportMix } from './exportMix.ts';
import { importSource } from './importSource.ts';
import { hashOnnx, inspectOnnx } from './inspectOnnx.ts';
import { describeLook } from './look/describeLook.ts';
import { measureRows } from './look/measureRows.ts';
import { closeLook, countLook, findLook, readLook } from './look/openLook.ts';
import { prepareLook } from './look/prepareLook.ts';
import { previewImport } from './look/previewImport.ts';
import { readRawRow, readRow, renderRow } from './look/readRow.ts';
import {
  requests,
  toDataSchema,
  type FromData,
  type Report,
  type RequestName,
  type RequestParams,
  type RequestResult,
} from './protocol.ts';
import { previewMix } from './previewMix.ts';
import { readTokenizer } from './readTokenizer.ts';
import { checkTokenizer } from './tokenizer/checkTokenizer.ts';
import { describeTokenizer, renderConversation, spellText } from './tokenizer/tryTokenizer.ts';
import {
  readContamination,
  readMixRejects,
  readMixRows,
  readMixRowsAt,
  readRejects,
  readSourceRows,
} from './readTables.ts';

type Handler<N extends RequestName> = (
  params: RequestParams<N>,
  report: Report,
  cancelled: AbortSignal,
) => Promise<RequestResult<N>>;

/** The tokenizer used last stays open: mixes and previews ask for the same one again. */
let open: { path: string; tokenizer: AddonTokenizer } | undefined;
async function openTokenizer(path: string): Promise<AddonTokenizer> {
  if (open?.path === path) return open.tokenizer;
  const tokenizer = await loadAddon().openTokenizer(path);
  open?.tokenizer.dispose();
  open = { path, tokenizer };
  return tokenizer;
}

const handlers: { [N in RequestName]: Handler<N> } = {
  importSource,
  readSourceRows,
  readRejects,
  previewMix: (params, report, cancelled) => previewMix(params, loadAddon, report, cancelled),
  readMixRejects,
  readContamination,
  inspectBenchmark,
  exportMix,
  compareMixes,
  buildMix: (params, report, cancelled) => buildMix(params, loadAddon, report, cancelled),
  readMixRows,
  readMixRowsAt,
  async tokenize({ tokenizerPath, texts, threads }) {
    const tokenizer = await openTokenizer(tokenizerPath);
    const { ids, offsets } = await tokenizer.encodeBatch(texts, { threads });
    return { ids: texts.map((_, index) => Array.from(ids.subarray(offsets[index], offsets[index + 1]))) };
  },
  readTokenizer: (params) => readTokenizer(params, loadAddon),
  describeTokenizer: async (params) => describeTokenizer(params, await openTokenizer(params.path)),
  spellText: async ({ path, text }) => spellText(text, await openTokenizer(path)),
  renderConversation: async (params) => renderConversation(params, await openTokenizer(params.path)),
  checkTokenizer: async (params) => checkTokenizer(params, await openTokenizer(params.path)),
  inspectModel: async ({ dir }) =>
    (await isOnnxFolder(dir)) ? inspectOnnx(dir) : loadAddon().inspectModel(dir),
  async hashModel({ dir }, report) {
    if (await isOnnxFolder(dir))
      return { identity: await hashOnnx(dir, (path) => loadAddon().hashFile(path)) };
    const identity = await loadAddon().hashModel(dir, ({ done, total, unit }) =>
      report({ done, total, unit, stage: 'hashing tensors' }),
    );
    return { identity };
  },
  async hashFile({ path }) {
    return { hash: await loadAddon().hashFile(path) };
  },
  prepareLook,
  countLook: (params, report, cancelled) =>
    countLook(params, {
      cancelled,
      onShare: (share) =>
        report({ done: Math.round(share * 100), total: 100, unit: '%', stage: 'searching the text' }),
    }),
  readLook,
  findLook,
  describeLook,
  closeLook,
  measureRows: (params, report, cancelled) => measureRows(params, loadAddon, report, cancelled),
  readRow,
  async renderRow(params) {
    return renderRow(params, await openTokenizer(params.tokenizer.path));
  },
  readRawRow,
  previewImport,
};

const running = new Map<number, AbortController>();

const link = connectToParent({ type: 'beat' } satisfies FromData);
const send = (message: FromData) => void link.send(message);

async function handle(id: number, name: string, raw: unknown): Promise<void> {
  const abort = new AbortController();
  running.set(id, abort);
  try {
    if (!Object.hasOwn(requests, name)) throw new CaravanError('internal', `unknown request ${name}`);
    const request = name as RequestName;
    const params = requests[request].params.parse(raw);
    let last = 0;
    const report: Report = (progress) => {
      const now = Date.now();
      if (now - last < 100 && progress.done !== progress.total) return;
      last = now;
      send({ type: 'progress', id, progress });
    };
    const result = await (handlers[request] as Handler<never>)(params as never, report, abort.signal);
    send({ type: 'result', id, result });
  } catch (error) {
    send({ type: 'error', id, error: explain(error).toData() });
  } finally {
    running.delete(id);
  }
}

/** A full disk is told from DuckDB's and Node's words. */
function explain(error: unknown): CaravanError {
  const known = CaravanError.from(error);
  if (known.code !== 'internal') return known;
  if ((error as NodeJS.ErrnoException).code === 'ENOSPC' || /No space left on device/i.test(known.message))
    return new CaravanError('disk_full', 'the disk is full', {
      mend: 'Free some space; nothing half-written is kept.',
      cause: error,
    });
  if (/Out of Memory/i.test(known.message))
    return new CaravanError('out_of_memory', known.message, {
      mend: 'Build a smaller mix, or give the data process more memory.',
      cause: error,
    });
  return known;
}

link.onMessage((raw) => {
  const message = toDataSchema.safeParse(raw);
  if (!message.success) return;
  if (message.data.type === 'cancel') running.get(message.data.id)?.abort();
  else void handle(message.data.id, message.data.name, message.data.params);
});
link.onGone(() => process.exit(0));
