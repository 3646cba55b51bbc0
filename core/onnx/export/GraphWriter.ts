import {
  attributeTypes,
  dataTypes,
  externalLocation,
  type AttributeProto,
  type GraphProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from '../format/modelProto.ts';

/** A float is told from an int by its wrapper: JavaScript has one kind of number. */
export interface FloatValue {
  float: number;
}
export type AttributeValue = number | FloatValue | string | number[] | GraphProto;

const text = new TextEncoder();

/** Nodes, constants and initializers in the order in which they are written; a node's outputs bear its name. */
export class GraphWriter {
  readonly nodes: NodeProto[] = [];
  readonly initializers: TensorProto[] = [];
  readonly #constants = new Map<string, string>();

  /**
   * @param inputs '' for an optional one that is left out
   * @returns the first output
   */
  add(
    opType: string,
    name: string,
    inputs: readonly string[],
    attributes: Record<string, AttributeValue> = {},
    outputs: readonly string[] = [name],
    domain = '',
  ): string {
    this.nodes.push({
      name,
      opType,
      domain,
      input: [...inputs],
      output: [...outputs],
      attribute: Object.entries(attributes).map(([key, value]) => attribute(key, value)),
    });
    return outputs[0]!;
  }

  /** A node of ONNX Runtime's own. */
  fused(
    opType: string,
    name: string,
    inputs: readonly string[],
    attributes: Record<string, AttributeValue>,
    outputs?: readonly string[],
  ): string {
    return this.add(opType, name, inputs, attributes, outputs, 'com.microsoft');
  }

  /** int64 numbers inside the graph, each once; `dims` [] for a scalar. */
  ints(values: readonly number[], dims: readonly number[] = [values.length]): string {
    const name = `ints.${dims.length === 0 ? 'scalar.' : ''}${values.join('.').replaceAll('-', 'minus')}`;
    if (!this.#constants.has(name)) {
      this.#constants.set(name, name);
      this.initializers.push({
        name,
        dims: [...dims],
        dataType: dataTypes.int64,
        rawData: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
      });
    }
    return name;
  }

  /** A single float inside the graph. */
  float(value: number): string {
    const name = `float.${value}`;
    if (!this.#constants.has(name)) {
      this.#constants.set(name, name);
      this.initializers.push({
        name,
        dims: [],
        dataType: dataTypes.float,
        rawData: new Uint8Array(Float32Array.of(value).buffer),
      });
    }
    return name;
  }

  /** Numbers in the file beside the graph. */
  external(
    name: string,
    dataType: number,
    dims: readonly number[],
    place: { location: string; offset: number; length: number },
  ): string {
    const { location, offset, length } = place;
    this.initializers.push({
      name,
      dims: [...dims],
      dataType,
      dataLocation: externalLocation,
      externalData: [
        { key: 'location', value: location },
        { key: 'offset', value: String(offset) },
        { key: 'length', value: String(length) },
      ],
    });
    return name;
  }
}

export function valueInfo(
  name: string,
  elemType: number,
  dims: readonly (number | string)[],
): ValueInfoProto {
  const dim = dims.map((size) => (typeof size === 'number' ? { dimValue: size } : { dimParam: size }));
  return { name, type: { tensorType: { elemType, shape: { dim } } } };
}

/** A branch of an If: no inputs, one output. */
export function branch(name: string, nodes: NodeProto[], output: ValueInfoProto): GraphProto {
  return { name, node: nodes, initializer: [], input: [], output: [output] };
}

function attribute(name: string, value: AttributeValue): AttributeProto {
  if (typeof value === 'number') return { name, type: attributeTypes.int, i: value };
  if (typeof value === 'string') return { name, type: attributeTypes.string, s: text.encode(value) };
  if (Array.isArray(value)) return { name, type: attributeTypes.ints, ints: value };
  if ('float' in value) return { name, type: attributeTypes.float, f: value.float };
  return { name, type: attributeTypes.graph, g: value };
}
