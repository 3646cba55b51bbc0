/** A model is a folder or a GGUF file, which carries its tokenizer inside. */
export function isGgufPath(path: string): boolean {
  return path.toLowerCase().endsWith('.gguf');
}
