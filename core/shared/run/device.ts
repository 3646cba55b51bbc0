/** What run.yaml and the engine call the processor and each GPU, in CUDA's own order. */
export const devices = [
  'cpu',
  'cuda',
  'cuda:1',
  'cuda:2',
  'cuda:3',
  'cuda:4',
  'cuda:5',
  'cuda:6',
  'cuda:7',
] as const;
export type Device = (typeof devices)[number];
