/** A tokenizer looked at by itself: what it is made of, and what it makes of a text or a conversation. */
import type { AddonTokenizer } from '../../engine/AddonTypes.ts';
import { encodeConversations } from '../../prompt/encodeConversations.ts';
import { renderJinja } from '../../prompt/renderJinja.ts';
import { spellTokens } from '../../prompt/spellTokens.ts';
import { renderTemplate } from '../../shared/dataset/template.ts';
import type { TokenizerFacts } from '../../shared/model/model.ts';
import type { RequestParams, RequestResult } from '../protocol.ts';

export function describeTokenizer(
  { path, tokens, stopIds }: RequestParams<'describeTokenizer'>,
  tokenizer: AddonTokenizer,
): TokenizerFacts {
  const specials = tokens.specials.flatMap((text) => {
    const id = tokenizer.tokenToId(text);
    if (id === null) return [];
    const roles: TokenizerFacts['specials'][number]['roles'] = [];
    if (text === tokens.bos) roles.push('bos');
    if (text === tokens.eos) roles.push('eos');
    if (stopIds.includes(id) || text === tokens.eos) roles.push('stop');
    return [{ id, text, roles }];
  });
  return {
    path,
    vocabSize: tokenizer.vocabSize,
    addsBos: tokenizer.addsBos,
    addsEos: tokenizer.addsEos,
    specials: specials.sort((a, b) => a.id - b.id),
    chatTemplate: tokens.chatTemplate,
  };
}

export function spellText(text: string, tokenizer: AddonTokenizer): RequestResult<'spellText'> {
  const ids = tokenizer.encode(text);
  return {
    count: ids.length,
    tokens: spellTokens(tokenizer, ids).map(({ from, to, text: spelled, special }) => {
      const own = Array.from(ids.subarray(from, to));
      return { text: spelled, ids: own, pieces: own.map((id) => tokenizer.idToToken(id) ?? ''), special };
    }),
  };
}

export async function renderConversation(
  { messages, template, tokens }: RequestParams<'renderConversation'>,
  tokenizer: AddonTokenizer,
): Promise<RequestResult<'renderConversation'>> {
  const pieces = renderTemplate(template, messages, tokens, renderJinja);
  const [encoded] = await encodeConversations(tokenizer, [pieces], 1);
  const { ids, targets } = encoded!;
  const mayJoin = (place: number, first: number) => targets[place] === targets[first];
  return spellTokens(tokenizer, ids, mayJoin).map(({ from, to, text, special }) => ({
    text,
    ids: Array.from(ids.subarray(from, to)),
    special,
    target: targets[from] === 1,
  }));
}
