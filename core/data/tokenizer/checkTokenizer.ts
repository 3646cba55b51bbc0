/** What must be true of a model's tokenizer and template before anything is trained with them. */
import type { AddonTokenizer } from '../../engine/AddonTypes.ts';
import { encodeConversations } from '../../prompt/encodeConversations.ts';
import { renderJinja } from '../../prompt/renderJinja.ts';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { Message } from '../../shared/dataset/source.ts';
import { renderTemplate } from '../../shared/dataset/template.ts';
import type { ModelCheck } from '../../shared/model/model.ts';
import type { RequestParams } from '../protocol.ts';

/** In normal form C, which is what tokenizers that normalise give back. */
const texts = [
  'The quick brown fox jumps over the lazy dog.',
  'def largest(a, b):\n\treturn a if a > b else b\n',
  '3.14159 + 2,718 = ?  (two  spaces)',
  'Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.',
  'おはようございます。你好，世界！',
  'Пока дышу, надеюсь — 🐪🏜️ 👩🏽‍🚀',
];
const conversation: Message[] = [
  { role: 'user', content: 'What is 17 + 25?' },
  { role: 'assistant', content: '17 + 25 = 42.' },
  { role: 'user', content: 'And in French?' },
  { role: 'assistant', content: 'Quarante-deux.' },
];
/** Vocabularies of code models have thousands of special tokens. */
const mostSpecials = 256;

type Params = RequestParams<'checkTokenizer'>;

export async function checkTokenizer(params: Params, tokenizer: AddonTokenizer): Promise<ModelCheck[]> {
  return [
    checkRoundTrip(tokenizer),
    checkPlainText(params, tokenizer),
    ...(await checkTemplate(params, tokenizer)),
  ];
}

function checkRoundTrip(tokenizer: AddonTokenizer): ModelCheck {
  const lost = texts.find((text) => tokenizer.decode(tokenizer.encode(text)) !== text);
  return {
    name: 'round-trip',
    passed: lost === undefined,
    found:
      lost === undefined
        ? `${texts.length} texts of prose, code, numbers and other scripts come back to the letter`
        : `${JSON.stringify(lost)} comes back as ${JSON.stringify(tokenizer.decode(tokenizer.encode(lost)))}`,
  };
}

function checkPlainText({ tokens }: Params, tokenizer: AddonTokenizer): ModelCheck {
  const specials = tokens.specials.slice(0, mostSpecials);
  if (specials.length === 0)
    return { name: 'plain-text', passed: null, found: 'the tokenizer has no special tokens' };
  const forged = specials.find((text) =>
    tokenizer.encode(`a ${text} b`).some((id) => tokenizer.isSpecial(id)),
  );
  return {
    name: 'plain-text',
    passed: forged === undefined,
    found:
      forged === undefined
        ? `a row that spells one of ${specials.length} special tokens stays text`
        : `a row that spells ${forged} becomes that token`,
  };
}

async function checkTemplate(
  { tokens, stopIds, template }: Params,
  tokenizer: AddonTokenizer,
): Promise<ModelCheck[]> {
  const own = template === 'model' ? "the model's own template" : 'the Camelidae template';
  try {
    const [whole, prompt] = await encodeConversations(
      tokenizer,
      [conversation, conversation.slice(0, -1)].map((messages) =>
        renderTemplate(template, messages, tokens, renderJinja),
      ),
      1,
    );
    const { ids, targets } = whole!;
    const apart = prompt!.ids.findIndex((id, index) => id !== ids[index]);
    const last = targets.lastIndexOf(1);
    const end = last < 0 ? null : ids[last]!;
    const eos = tokens.eos === null ? null : tokenizer.tokenToId(tokens.eos);
    const word = end === null ? '' : (tokenizer.idToToken(end) ?? `id ${end}`);
    return [
      {
        name: 'template',
        passed: apart < 0,
        found:
          apart < 0
            ? `${own}: the prompt of a chat is the beginning of what training sees, token by token (${prompt!.ids.length} of ${ids.length})`
            : `${own}: a chat's prompt leaves what training sees at token ${apart + 1}`,
      },
      end !== null && (stopIds.includes(end) || end === eos)
        ? {
            name: 'stop',
            passed: true,
            found: `answers end with ${word}, at which generation stops`,
          }
        : {
            name: 'stop',
            passed: false,
            found:
              end === null
                ? `${own} trains nothing of an answer`
                : `answers end with ${JSON.stringify(word)}, at which generation does not stop`,
          },
    ];
  } catch (error) {
    const { message } = CaravanError.from(error);
    return [
      { name: 'template', passed: false, found: message },
      { name: 'stop', passed: null, found: 'not told without a template' },
    ];
  }
}
