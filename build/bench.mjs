// `npm run bench [-- NAME ARGS...]`: builds native/bench and runs one of its programs, or lists them. `training` is the
// comparison with PyTorch: `npm run bench -- training [ROUNDS [STEPS]]`; `curation [SCALE [DIR]]` builds IDAE-720K from
// full-size stand-ins; `decoding FOLDER...` decodes with models and ONNX exports in turn.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { benchTraining } from './bench_training.mjs';
import { buildNative } from './native.mjs';
import { run } from './tools.mjs';

const { code, folder } = await buildNative({ bench: true });
if (code !== 0) process.exit(1);
const programs = readdirSync(join(folder, 'bench')).filter((name) => /_bench(\.exe)?$/.test(name));
const [wanted, ...args] = process.argv.slice(2);
if (wanted === undefined) {
  process.stdout.write(
    `npm run bench -- NAME; the names are: training, curation, decoding, ${programs.map((name) => name.replace(/_bench.*/, '')).join(', ')}\n`,
  );
} else if (wanted === 'training') {
  process.exitCode = await benchTraining(folder, args);
} else if (wanted === 'curation') {
  const script = join(import.meta.dirname, '../tests/scale/measureCuration.ts');
  process.exitCode = (await run(process.execPath, [script, ...args])).code;
} else if (wanted === 'decoding') {
  const script = join(import.meta.dirname, '../tests/scale/measureDecoding.ts');
  process.exitCode = (await run(process.execPath, [script, ...args])).code;
} else {
  const program = programs.find((name) => name.replace(/_bench.*/, '') === wanted);
  if (program === undefined) {
    process.stderr.write(`There is no benchmark ${wanted}: run npm run bench for the names\n`);
    process.exit(2);
  }
  process.exitCode = (await run(join(folder, 'bench', program), args)).code;
}
