import type { AddonTokenizer } from '../engine/AddonTypes.ts';
import { CaravanError } from '../shared/contract/errors.ts';
import type { TemplatePiece } from '../shared/dataset/template.ts';

export interface EncodedConversation {
  ids: Int32Array;
  /** 1 where the token is a target. */
  targets: Uint8Array;
}

/** Tokenises rendered conversations, every text of all of them in one parallel batch. */
export async function encodeConversations(
  tokenizer: AddonTokenizer,
  conversations: readonly TemplatePiece[][],
  threads: number,
): Promise<EncodedConversation[]> {
  const texts: string[] = [];
  for (const pieces of conversations)
    for (const piece of pieces) if (piece.kind === 'text') texts.push(piece.text);
  const batch = await tokenizer.encodeBatch(texts, { threads });
  const specials = new Map<string, number>();
  let next = 0;
  return conversations.map((pieces) => {
    const parts: { ids: Int32Array; target: boolean }[] = [];
    let length = 0;
    for (const piece of pieces) {
      let ids: Int32Array;
      if (piece.kind === 'text') {
        ids = batch.ids.subarray(batch.offsets[next], batch.offsets[next + 1]);
        next++;
      } else ids = Int32Array.of(specialId(tokenizer, specials, piece.token));
      parts.push({ ids, target: piece.target });
      length += ids.length;
    }
    const all: EncodedConversation = { ids: new Int32Array(length), targets: new Uint8Array(length) };
    let at = 0;
    for (const { ids, target } of parts) {
      all.ids.set(ids, at);
      if (target) all.targets.fill(1, at, at + ids.length);
      at += ids.length;
    }
    return all;
  });
}

function specialId(tokenizer: AddonTokenizer, known: Map<string, number>, token: string): number {
  let id = known.get(token);
  if (id === undefined) {
    const found = tokenizer.tokenToId(token);
    if (found === null)
      throw new CaravanError(
        'tokenizer_invalid',
        `the template needs the token ${token}, which the tokenizer does not have`,
        {
          place: { file: 'tokenizer.json', field: 'added_tokens' },
          mend: 'Bring the tokenizer that belongs to this model: its template, bos_token and eos_token must be tokens that it has.',
        },
      );
    id = found;
    known.set(token, id);
  }
  return id;
}
