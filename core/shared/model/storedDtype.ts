/** Whether it is an ONNX export: ONNX Runtime computes it, and nothing trains on it. */
export function isOnnxModel(storedDtypes: readonly string[]): boolean {
  return storedDtypes.some((dtype) => dtype.startsWith('ONNX '));
}

/** How a model's own files keep it: bf16 where all of it is, NF4 where it is published so, else f32. */
export function storedBaseDtype(storedDtypes: readonly string[]): 'f32' | 'bf16' | 'nf4' {
  const types = storedDtypes.map((dtype) => dtype.toUpperCase());
  if (types.includes('NF4')) return 'nf4';
  return types.length > 0 && types.every((type) => type === 'BF16') ? 'bf16' : 'f32';
}
