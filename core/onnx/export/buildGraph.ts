/**
 * The decoder as a graph for ONNX Runtime, with its fused operators; docs/adr says why these. Inputs and outputs bear the names that
 * onnxruntime-genai and Hugging Face's exports give them.
 */
import type { OnnxTensor, OnnxTensorPart } from '../../engine/AddonTypes.ts';
import { dataTypes, encodeModel, type ModelProto } from '../format/modelProto.ts';
import {
  metadataKey,
  type OnnxArchitecture,
  type OnnxMetadata,
  type OnnxType,
} from '../../shared/model/onnxModel.ts';
import { addExperts } from './addExperts.ts';
import { GraphWriter, valueInfo } from './GraphWriter.ts';
import { blockSize, DataLayout } from './layData.ts';

/** Products of int4 codes with activations rounded to int8, block by block, summed in int32: the fastest of CPUs. */
const fastAccuracy = 4;
const exactAccuracy = 1;

export interface BuiltGraph {
  /** model.onnx */
  model: Uint8Array;
  /** What the data file holds, in order. */
  tensors: OnnxTensor[];
  dataBytes: number;
}

const irVersion = 10;
const opsets = [
  { domain: '', version: 21 },
  { domain: 'com.microsoft', version: 1 },
];

export interface GraphOptions {
  /** Of the program that writes it. */
  version: string;
  /** Activations stay f32 where products would round them to int8. @default false */
  exact?: boolean;
}

export function buildGraph(
  architecture: OnnxArchitecture,
  type: OnnxType,
  { version, exact = false }: GraphOptions,
): BuiltGraph {
  const graph = new GraphWriter();
  const data = new DataLayout(graph);
  const a = architecture;
  const qSize = a.numHeads * a.headDim;
  const kvSize = a.numKvHeads * a.headDim;
  const epsilon = { float: a.normEps };
  const half = type === 'f16';

  const part = (name: string, rows: number, cols: number): OnnxTensorPart => ({
    name,
    parameter: false,
    rows,
    cols,
  });
  const vector = (name: string, size: number) => data.plain(name, 'f32', [size], [part(name, size, 1)]);
  const widened = (name: string) =>
    half ? graph.add('Cast', `${name}.f32`, [name], { to: dataTypes.float }) : name;

  /** y = x W^T + b of one weight, or of several on top of each other. */
  function linear(node: string, x: string, name: string, parts: OnnxTensorPart[], bias: boolean): string {
    const rows = parts.reduce((all, { rows: each }) => all + each, 0);
    const cols = parts[0]!.cols;
    const weight = `${name}.weight`;
    let y: string;
    if (type === 'int4') {
      y = multiplyBlocked(node, x, data.blocked(weight, 'int4', parts), rows, cols, 4);
    } else {
      data.plain(weight, type, [cols, rows], parts, { transposed: true });
      y = graph.add('MatMul', node, [x, widened(weight)]);
    }
    if (!bias) return y;
    const biases = parts.map((each) => part(each.name.replace(/weight$/, 'bias'), each.rows, 1));
    return graph.add('Add', `${node}.biased`, [y, data.plain(`${name}.bias`, 'f32', [rows], biases)]);
  }

  function multiplyBlocked(
    node: string,
    x: string,
    { codes, scales, zeros }: { codes: string; scales: string; zeros: string },
    rows: number,
    cols: number,
    bits: number,
  ): string {
    return graph.fused('MatMulNBits', node, [x, codes, scales, ...(zeros === '' ? [] : [zeros])], {
      K: cols,
      N: rows,
      bits,
      block_size: blockSize,
      accuracy_level: exact ? exactAccuracy : fastAccuracy,
    });
  }

  // The embedding, and the head that may be the same numbers.
  const embedding = 'model.embed_tokens.weight';
  const table = [part(embedding, a.vocabSize, a.hiddenSize)];
  const outerBits = 8;
  const outer = type === 'int4' ? data.blocked(embedding, 'int8', table) : null;
  let x: string;
  if (outer) {
    const flat = data.alias(`${embedding}.rows`, outer.codes, [a.vocabSize, a.hiddenSize]);
    x = graph.fused('GatherBlockQuantized', 'embedded', [flat, 'input_ids', outer.scales], {
      bits: outerBits,
      block_size: blockSize,
      gather_axis: 0,
      quantize_axis: 1,
    });
  } else {
    data.plain(embedding, type === 'f16' ? 'f16' : 'f32', [a.vocabSize, a.hiddenSize], table);
    const rows = graph.add('Gather', 'embedded', [embedding, 'input_ids'], { axis: 0 });
    x = half ? graph.add('Cast', 'embedded.f32', [rows], { to: dataTypes.float }) : rows;
  }

  // Lengths, of all sequences from their masks.
  const kept = graph.add('ReduceSum', 'mask.sums', ['attention_mask', graph.ints([1])], { keepdims: 0 });
  const last = graph.add('Sub', 'mask.last', [kept, graph.ints([1])]);
  const lastPosition = graph.add('Cast', 'sequence_ends', [last], { to: dataTypes.int32 });
  const maskShape = graph.add('Shape', 'mask.shape', ['attention_mask']);
  const total = graph.add('Gather', 'mask.length', [maskShape, graph.ints([1], [])], { axis: 0 });
  const totalLength = graph.add('Cast', 'total_length', [total], { to: dataTypes.int32 });
  const angles = [part('', a.contextLength, a.headDim / 2)];
  const angleDims = [a.contextLength, a.headDim / 2];
  if (a.rotates.includes(true)) {
    data.plain('rope.cos', 'rope_cos', angleDims, angles);
    data.plain('rope.sin', 'rope_sin', angleDims, angles);
  }

  function attention(layer: number, normed: string): string {
    const at = `layers.${layer}.attention`;
    const prefix = `model.layers.${layer}.self_attn`;
    const projection = (which: string, rows: number) =>
      part(`${prefix}.${which}_proj.weight`, rows, a.hiddenSize);
    const packed = linear(
      `${at}.qkv`,
      normed,
      `${prefix}.qkv_proj`,
      [projection('q', qSize), projection('k', kvSize), projection('v', kvSize)],
      a.qkvBias,
    );
    let queries = [packed, '', ''];
    if (a.qkNorm) {
      const names = ['q', 'k', 'v'].map((which) => `${at}.${which}`);
      graph.add('Split', `${at}.split`, [packed, graph.ints([qSize, kvSize, kvSize])], { axis: -1 }, names);
      queries = [
        normHeads(names[0]!, `${prefix}.q_norm.weight`, a.numHeads),
        normHeads(names[1]!, `${prefix}.k_norm.weight`, a.numKvHeads),
        names[2]!,
      ];
    }
    const rotates = a.rotates[layer]!;
    const attended = graph.fused(
      'GroupQueryAttention',
      `${at}.heads`,
      [
        ...queries,
        `past_key_values.${layer}.key`,
        `past_key_values.${layer}.value`,
        lastPosition,
        totalLength,
        ...(rotates ? ['rope.cos', 'rope.sin'] : []),
      ],
      {
        num_heads: a.numHeads,
        kv_num_heads: a.numKvHeads,
        do_rotary: rotates ? 1 : 0,
        rotary_interleaved: 0,
        local_window_size: a.windows[layer]! > 0 ? a.windows[layer]! : -1,
        scale: { float: 1 / Math.sqrt(a.headDim) },
      },
      [`${at}.heads`, `present.${layer}.key`, `present.${layer}.value`],
    );
    const output = part(`${prefix}.o_proj.weight`, a.hiddenSize, qSize);
    return linear(`${at}.out`, attended, `${prefix}.o_proj`, [output], a.oBias);
  }

  function normHeads(values: string, weight: string, heads: number): string {
    const apart = graph.add('Reshape', `${values}.heads`, [values, graph.ints([0, 0, heads, a.headDim])]);
    const normed = graph.add(
      'SimplifiedLayerNormalization',
      `${values}.normed`,
      [apart, vector(weight, a.headDim)],
      {
        axis: -1,
        epsilon,
        stash_type: 1,
      },
    );
    return graph.add('Reshape', `${values}.joined`, [normed, graph.ints([0, 0, heads * a.headDim])]);
  }

  function feedForward(layer: number, normed: string): string {
    const at = `layers.${layer}.mlp`;
    const prefix = `model.layers.${layer}.mlp`;
    const [gate, up] = [`${at}.gate`, `${at}.up`];
    const weight = (which: string, rows: number, cols: number) =>
      part(`${prefix}.${which}_proj.weight`, rows, cols);
    const both = linear(
      `${at}.gate_up`,
      normed,
      `${prefix}.gate_up_proj`,
      [weight('gate', a.intermediateSize, a.hiddenSize), weight('up', a.intermediateSize, a.hiddenSize)],
      a.mlpBias,
    );
    const halves = graph.ints([a.intermediateSize, a.intermediateSize]);
    graph.add('Split', `${at}.split`, [both, halves], { axis: -1 }, [gate, up]);
    const sigmoid = graph.add('Sigmoid', `${at}.sigmoid`, [gate]);
    const silu = graph.add('Mul', `${at}.silu`, [gate, sigmoid]);
    const inner = graph.add('Mul', `${at}.inner`, [silu, up]);
    const out = linear(
      `${at}.down`,
      inner,
      `${prefix}.down_proj`,
      [weight('down', a.hiddenSize, a.intermediateSize)],
      a.mlpBias,
    );
    return a.experts === null
      ? out
      : addExperts(
          { graph, data, layer, experts: a.experts, hiddenSize: a.hiddenSize, half: type !== 'f32' },
          normed,
          out,
        );
  }

  // The residual stream: each norm also gives the sum that it normalised.
  function normSum(
    at: string,
    weight: string,
    residual: string,
    added: string,
  ): [normed: string, sum: string] {
    const names: [string, string] = [`${at}.normed`, `${at}.sum`];
    graph.fused(
      'SkipSimplifiedLayerNormalization',
      at,
      [residual, added, vector(weight, a.hiddenSize)],
      { epsilon },
      [names[0], '', '', names[1]],
    );
    return names;
  }

  let residual = x;
  let normed = graph.add(
    'SimplifiedLayerNormalization',
    'layers.0.input.normed',
    [x, vector('model.layers.0.input_layernorm.weight', a.hiddenSize)],
    { axis: -1, epsilon, stash_type: 1 },
  );
  for (let layer = 0; layer < a.numLayers; layer++) {
    const attended = attention(layer, normed);
    const [ready, sum] = normSum(
      `layers.${layer}.middle`,
      `model.layers.${layer}.post_attention_layernorm.weight`,
      residual,
      attended,
    );
    const fed = feedForward(layer, ready);
    const following = layer + 1;
    const isLast = following === a.numLayers;
    [normed, residual] = normSum(
      isLast ? 'final' : `layers.${following}.input`,
      isLast ? 'model.norm.weight' : `model.layers.${following}.input_layernorm.weight`,
      sum,
      fed,
    );
  }

  // The head.
  if (type === 'int4') {
    const head = a.tiedEmbeddings
      ? outer!
      : data.blocked('lm_head.weight', 'int8', [part('lm_head.weight', a.vocabSize, a.hiddenSize)]);
    multiplyBlocked('logits', normed, head, a.vocabSize, a.hiddenSize, outerBits);
  } else {
    let weight = embedding;
    if (!a.tiedEmbeddings) {
      weight = 'lm_head.weight';
      data.plain(weight, type, [a.vocabSize, a.hiddenSize], [part(weight, a.vocabSize, a.hiddenSize)]);
    }
    // A product that takes its weight as it lies, so that a tied one is there once.
    const flat = graph.add('Reshape', 'head.tokens', [normed, graph.ints([-1, a.hiddenSize])]);
    const wide = half ? graph.add('Cast', `${weight}.f32`, [weight], { to: dataTypes.float }) : weight;
    const rows = graph.add('Gemm', 'head', [flat, wide], { transB: 1 });
    const idsShape = graph.add('Shape', 'ids.shape', ['input_ids']);
    const shape = graph.add('Concat', 'logits.shape', [idsShape, graph.ints([a.vocabSize])], { axis: 0 });
    graph.add('Reshape', 'logits', [rows, shape]);
  }

  const metadata: OnnxMetadata = { schema: 'caravan-onnx-1', type, architecture };
  const cache = (name: string, length: string) =>
    Array.from({ length: a.numLayers }, (_, layer) =>
      ['key', 'value'].map((what) =>
        valueInfo(`${name}.${layer}.${what}`, dataTypes.float, [
          'batch_size',
          a.numKvHeads,
          length,
          a.headDim,
        ]),
      ),
    ).flat();
  const model: ModelProto = {
    irVersion,
    producerName: 'caravan',
    producerVersion: version,
    opsetImport: opsets,
    metadataProps: [{ key: metadataKey, value: JSON.stringify(metadata) }],
    graph: {
      name: 'decoder',
      node: graph.nodes,
      initializer: graph.initializers,
      input: [
        valueInfo('input_ids', dataTypes.int64, ['batch_size', 'sequence_length']),
        valueInfo('attention_mask', dataTypes.int64, ['batch_size', 'total_sequence_length']),
        ...cache('past_key_values', 'past_sequence_length'),
      ],
      output: [
        valueInfo('logits', dataTypes.float, ['batch_size', 'sequence_length', a.vocabSize]),
        ...cache('present', 'total_sequence_length'),
      ],
    },
  };
  return { model: encodeModel(model), tensors: data.tensors, dataBytes: data.bytes };
}
