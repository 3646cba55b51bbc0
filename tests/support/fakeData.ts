import type { DataProcess, DataRequestOptions } from '../../core/data/client.ts';
import type { RequestName, RequestParams, RequestResult } from '../../core/data/protocol.ts';

type Answers = {
  [N in RequestName]?: (
    params: RequestParams<N>,
    options: DataRequestOptions,
  ) => RequestResult<N> | Promise<RequestResult<N>>;
};

/** A data process that answers as scripted, and fails loudly where it is asked for more. */
export interface FakeData extends DataProcess {
  readonly asked: { name: RequestName; params: unknown }[];
  answers: Answers;
}

export function createFakeData(answers: Answers = {}): FakeData {
  const asked: FakeData['asked'] = [];
  const fake: FakeData = {
    asked,
    answers,
    pid: 4242,
    async request(name, params, options = {}) {
      asked.push({ name, params });
      const answer = fake.answers[name] as
        ((params: unknown, options: DataRequestOptions) => unknown) | undefined;
      if (!answer) throw new Error(`the fake data process has no answer to ${name}`);
      return (await answer(params, options)) as never;
    },
    close: () => Promise.resolve(),
  };
  return fake;
}

export const tinyModelSummary: RequestResult<'inspectModel'> = {
  architecture: 'LlamaForCausalLM',
  family: 'llama',
  hiddenSize: 64,
  intermediateSize: 128,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  headDim: 16,
  vocabSize: 100,
  maxPositions: 512,
  tiedEmbeddings: true,
  parameters: { embedding: 6400, attention: 24576, mlp: 49152, norms: 320, head: 0, total: 80448 },
  storedDtypes: ['BF16'],
  fileBytes: 160896,
};

export const tinyTokenizer: RequestResult<'readTokenizer'> = {
  tokens: { bos: '<s>', eos: '</s>', specials: ['<s>', '</s>'], chatTemplate: null },
  stopIds: [2],
};
