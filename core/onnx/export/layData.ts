import { dataTypes } from '../format/modelProto.ts';
import { dataFile } from '../../shared/model/onnxModel.ts';
import type { OnnxTensor, OnnxTensorPart } from '../../engine/AddonTypes.ts';
import type { GraphWriter } from './GraphWriter.ts';

/** MatMulNBits' and GatherBlockQuantized's block: numbers of a row that share a scale. */
export const blockSize = 32;
/** Small tensors lie as processors like them, large ones on pages, so that they can be mapped. */
const smallAlignment = 64;
const pageAlignment = 4096;
const pageFrom = 1 << 16;

/** Names of a matrix in blocks, as the operators take them. */
export interface Blocked {
  codes: string;
  scales: string;
  /** '' where all are the operators' default. */
  zeros: string;
}

/** Lays tensors one behind the other in the data file, and tells the graph where. */
export class DataLayout {
  readonly tensors: OnnxTensor[] = [];
  #end = 0;
  readonly #graph: GraphWriter;

  constructor(graph: GraphWriter) {
    this.#graph = graph;
  }

  get bytes(): number {
    return this.#end;
  }

  #place(length: number): { location: string; offset: number; length: number } {
    const alignment = length >= pageFrom ? pageAlignment : smallAlignment;
    const offset = Math.ceil(this.#end / alignment) * alignment;
    this.#end = offset + length;
    return { location: dataFile, offset, length };
  }

  /**
   * @param dims as the graph sees it
   * @param shape how the parts' rows are cut and turned
   */
  plain(
    name: string,
    form: 'f32' | 'f16' | 'rope_cos' | 'rope_sin',
    dims: readonly number[],
    parts: OnnxTensorPart[],
    shape: { batch?: number; transposed?: boolean } = {},
  ): string {
    const half = form === 'f16';
    const place = this.#place(dims.reduce((all, dim) => all * dim, half ? 2 : 4));
    const { batch = 1, transposed = false } = shape;
    this.tensors.push({ name, form, offset: place.offset, batch, transposed, parts });
    return this.#graph.external(name, half ? dataTypes.float16 : dataTypes.float, dims, place);
  }

  /** The numbers of a tensor under another name and shape. */
  alias(name: string, of: string, dims: readonly number[]): string {
    const { dataType, externalData } = this.#graph.initializers.find((tensor) => tensor.name === of)!;
    const field = (key: string) => externalData!.find((entry) => entry.key === key)!.value;
    const place = {
      location: field('location'),
      offset: Number(field('offset')),
      length: Number(field('length')),
    };
    return this.#graph.external(name, dataType, dims, place);
  }

  /** A matrix in blocks along its rows. */
  blocked(name: string, form: 'int4' | 'int8', parts: OnnxTensorPart[]): Blocked {
    const rows = parts.reduce((all, part) => all + part.rows, 0);
    const cols = parts[0]!.cols;
    const blocks = cols / blockSize;
    const codeBytes = form === 'int4' ? blockSize / 2 : blockSize;
    const codes = this.#place(rows * blocks * codeBytes);
    const scales = this.#place(rows * blocks * 4);
    const tensor: OnnxTensor = {
      name,
      form,
      offset: codes.offset,
      scalesOffset: scales.offset,
      batch: 1,
      transposed: false,
      parts,
    };
    const graph = this.#graph;
    const names = {
      codes: graph.external(`${name}.codes`, dataTypes.uint8, [rows, blocks, codeBytes], codes),
      scales: graph.external(`${name}.scales`, dataTypes.float, [rows, blocks], scales),
      zeros: '',
    };
    if (form === 'int4') {
      const rowBytes = Math.ceil(blocks / 2);
      const zeros = this.#place(rows * rowBytes);
      tensor.zerosOffset = zeros.offset;
      names.zeros = graph.external(`${name}.zeros`, dataTypes.uint8, [rows, rowBytes], zeros);
    }
    this.tensors.push(tensor);
    return names;
  }
}
