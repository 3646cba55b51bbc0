import { CaravanError } from '../shared/contract/errors.ts';
import type { Addon, ExportOptions } from './AddonTypes.ts';
import { planOnnx } from './exportOnnx.ts';
import type { RequestParams, RequestResult } from './protocol.ts';

/** How the engine words a refusal: what, why, and what to use instead. */
const refusalWords = /^layout "[^"]*": (.*); ([^;]*)$/s;

/** What each export would take, or why it is refused; reads headers and manifests alone. */
export async function offerExports(
  addon: Addon,
  { model, mergeInto, asked }: RequestParams<'offerExports'>,
): Promise<RequestResult<'offerExports'>> {
  const offers: RequestResult<'offerExports'> = [];
  for (const { layout, type } of asked) {
    try {
      const options: ExportOptions = {
        ...model,
        layout,
        type,
        originalBase: mergeInto === 'original',
        // What comes from here on is written, not planned.
        outDir: '',
        shardBytes: Number.MAX_SAFE_INTEGER,
        ggufFile: '',
        ggufName: '',
        tokenizerPath: '',
        chatTemplate: '',
        eosIds: [],
      };
      const planned = layout === 'onnx' ? await planOnnx(addon, options) : await addon.planExport(options);
      offers.push({ ...planned, refusal: null });
    } catch (error) {
      offers.push({ bytes: null, tensors: null, refusal: refusalOf(CaravanError.from(error)).toData() });
    }
  }
  return offers;
}

function refusalOf(error: CaravanError): CaravanError {
  const words = refusalWords.exec(error.message);
  if (!words) return error;
  return new CaravanError(error.code, words[1]!, {
    ...(error.place && { place: error.place }),
    mend: words[2]![0]!.toUpperCase() + words[2]!.slice(1),
  });
}
