import type { OnnxTensorPart } from '../../engine/AddonTypes.ts';
import { dataTypes } from '../format/modelProto.ts';
import type { OnnxArchitecture } from '../../shared/model/onnxModel.ts';
import { branch, GraphWriter, valueInfo } from './GraphWriter.ts';
import type { DataLayout } from './layData.ts';

interface ExpertLayer {
  graph: GraphWriter;
  data: DataLayout;
  layer: number;
  experts: NonNullable<OnnxArchitecture['experts']>;
  hiddenSize: number;
  /** Adapters are stored in f16; routers never are: a choice of experts has no small error. */
  half: boolean;
}

/**
 * y = f + s sum_k w_k Up_k(gelu(Down_k(f))) over the K experts that the router chose for a token by x, w being the softmax of
 * the kept logits alone. Few tokens fetch the adapters of their experts; for many, all adapters multiply once, and those of
 * experts that a token did not choose weigh nothing.
 * @returns y, of f's shape
 */
export function addExperts(
  { graph, data, layer, experts, hiddenSize, half }: ExpertLayer,
  x: string,
  f: string,
): string {
  const { count, topK, adapterDim, adapterScale } = experts;
  const at = `layers.${layer}.experts`;
  const prefix = `model.layers.${layer}.mlp`;
  const inner = count * adapterDim;
  const parameter = (name: string, rows: number, cols: number): OnnxTensorPart[] => [
    { name: `${prefix}.${name}`, parameter: true, rows, cols },
  ];
  const form = half ? 'f16' : 'f32';

  const router = data.plain(
    `${prefix}.router`,
    'f32',
    [hiddenSize, count],
    parameter('router', count, hiddenSize),
    { transposed: true },
  );
  const sizes = [count, adapterDim, hiddenSize];
  // Both (E, A, C): Up lies transposed, so that an expert's rows follow each other in either product.
  const down = data.plain(
    `${prefix}.adapter_down`,
    form,
    sizes,
    parameter('adapter_down', inner, hiddenSize),
  );
  const up = data.plain(
    `${prefix}.adapter_up`,
    form,
    sizes,
    parameter('adapter_up', count * hiddenSize, adapterDim),
    { batch: count, transposed: true },
  );
  const allDown = data.alias(`${prefix}.adapter_down.all`, down, [inner, hiddenSize]);
  const allUp = data.alias(`${prefix}.adapter_up.all`, up, [inner, hiddenSize]);

  const scores = graph.add('MatMul', `${at}.scores`, [x, router]);
  graph.add('TopK', `${at}.choice`, [scores, graph.ints([topK])], { axis: -1, largest: 1, sorted: 1 }, [
    `${at}.best`,
    `${at}.chosen`,
  ]);
  const soft = graph.add('Softmax', `${at}.soft`, [`${at}.best`], { axis: -1 });
  const weights =
    adapterScale === 1 ? soft : graph.add('Mul', `${at}.scaled`, [soft, graph.float(adapterScale)]);
  const tokens = graph.add('Reshape', `${at}.tokens`, [f, graph.ints([-1, hiddenSize])]);
  const chosen = graph.add('Reshape', `${at}.ids`, [`${at}.chosen`, graph.ints([-1, topK])]);
  const shares = graph.add('Reshape', `${at}.shares`, [weights, graph.ints([-1, topK])]);

  /** Nodes of a branch go into a list of their own; constants into the graph around it. */
  function within(build: (add: GraphWriter['add'], cast: (name: string) => string) => void) {
    const inside = new GraphWriter();
    const cast = (name: string) =>
      half ? inside.add('Cast', `${name}.f32.${at}`, [name], { to: dataTypes.float }) : name;
    build(inside.add.bind(inside), cast);
    return inside.nodes;
  }

  const few = within((add, cast) => {
    const rows = graph.ints([0, topK * adapterDim, hiddenSize]);
    const fetch = (what: string, name: string) => {
      const fetched = add('Gather', `${at}.few.${what}.fetched`, [name, chosen], { axis: 0 });
      return add('Reshape', `${at}.few.${what}`, [cast(fetched), rows]);
    };
    const column = add('Unsqueeze', `${at}.few.column`, [tokens, graph.ints([2])]);
    const narrow = add('MatMul', `${at}.few.narrow`, [fetch('down', down), column]);
    const active = add('Gelu', `${at}.few.active`, [narrow], { approximate: 'none' });
    const byExpert = add('Reshape', `${at}.few.byExpert`, [active, graph.ints([0, topK, adapterDim])]);
    const shareColumn = add('Unsqueeze', `${at}.few.shares`, [shares, graph.ints([2])]);
    const weighted = add('Mul', `${at}.few.weighted`, [byExpert, shareColumn]);
    const row = add('Reshape', `${at}.few.row`, [weighted, graph.ints([0, 1, topK * adapterDim])]);
    const wide = add('MatMul', `${at}.few.wide`, [row, fetch('up', up)]);
    add('Squeeze', `${at}.few.sum`, [wide, graph.ints([1])]);
  });

  const many = within((add, cast) => {
    const narrow = add('Gemm', `${at}.many.narrow`, [tokens, cast(allDown)], { transB: 1 });
    const active = add('Gelu', `${at}.many.active`, [narrow], { approximate: 'none' });
    const byExpert = add('Reshape', `${at}.many.byExpert`, [active, graph.ints([0, count, adapterDim])]);
    const rows = add('Shape', `${at}.many.rows`, [tokens], { start: 0, end: 1 });
    const shape = add('Concat', `${at}.many.shape`, [rows, graph.ints([count])], { axis: 0 });
    const zeros = add('Expand', `${at}.many.zeros`, [graph.float(0), shape]);
    const spread = add('ScatterElements', `${at}.many.spread`, [zeros, chosen, shares], { axis: 1 });
    const column = add('Unsqueeze', `${at}.many.shares`, [spread, graph.ints([2])]);
    const weighted = add('Mul', `${at}.many.weighted`, [byExpert, column]);
    const flat = add('Reshape', `${at}.many.flat`, [weighted, graph.ints([0, inner])]);
    add('MatMul', `${at}.many.sum`, [flat, cast(allUp)]);
  });

  const output = (name: string) => valueInfo(name, dataTypes.float, [`${at}.n`, hiddenSize]);
  const length = graph.add('Size', `${at}.length`, ['input_ids']);
  // Fetching costs what a product with the fetched adapters costs, again: it pays while most adapters are left alone.
  const most = Math.max(1, Math.floor(count / (2 * topK)));
  const isFew = graph.add('LessOrEqual', `${at}.isFew`, [length, graph.ints([most], [])]);
  const sum = graph.add('If', `${at}.sum`, [isFew], {
    then_branch: branch(`${at}.few`, few, output(`${at}.few.sum`)),
    else_branch: branch(`${at}.many`, many, output(`${at}.many.sum`)),
  });
  const shape = graph.add('Shape', `${at}.shape`, [f]);
  const shaped = graph.add('Reshape', `${at}.shaped`, [sum, shape]);
  return graph.add('Add', `${at}.out`, [f, shaped]);
}
