// Training on the CPU against PyTorch: both programs in turn on the same machine, several rounds, best of each, so that
// other work on the machine hits both alike and counts for neither.
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { findProgram, root, run } from './tools.mjs';

const twin = join(root, 'native/bench/torch_train.py');

/** The runs of a round: whose, what, and how it is called. */
function contenders(trainBench, python) {
  const ours = (...args) => [trainBench, args];
  const theirs = (...args) => [python, [twin, ...args]];
  return [
    { who: 'Caravan', what: 'f32', call: ours('--compute', 'f32') },
    { who: 'PyTorch', what: 'f32', call: theirs('--mode', 'f32') },
    { who: 'Caravan', what: 'bf16', call: ours('--compute', 'bf16') },
    { who: 'PyTorch', what: 'bf16 autocast', call: theirs('--mode', 'autocast') },
    { who: 'Caravan', what: 'bf16, NF4 base', call: ours('--compute', 'bf16', '--base', 'nf4') },
  ];
}

/**
 * @param {string} folder of the native build
 * @param {string[]} args [rounds [steps]]
 * @returns {Promise<number>} exit code
 */
export async function benchTraining(folder, [rounds = '2', steps = '3']) {
  const python = findProgram('python3', 'python');
  if (python === undefined) {
    process.stderr.write('The comparison needs Python with torch, transformers and peft: install python3\n');
    return 3;
  }
  const list = contenders(join(folder, 'bench/train_bench'), python);
  const best = list.map(() => ({ speed: 0, load: 0 }));
  for (let round = 1; round <= Number(rounds); ++round) {
    for (const [i, { who, what, call }] of list.entries()) {
      const { code, output } = await run(call[0], [...call[1], '--steps', steps], { quiet: true });
      const speed = Number(/^best ([\d.]+) tokens\/s/m.exec(output)?.[1]);
      if (code !== 0 || !(speed > 0)) {
        process.stderr.write(`${who} ${what} ended with code ${code}:\n${output}`);
        return 1;
      }
      const load = loadavg()[0];
      process.stdout.write(`round ${round}: ${who} ${what}: ${speed} tokens/s (load ${load.toFixed(1)})\n`);
      if (speed > best[i].speed) best[i] = { speed, load };
    }
  }
  process.stdout.write(
    `\n${availableParallelism()} cores; best step of ${rounds} rounds of ${steps} steps\n\n`,
  );
  process.stdout.write('| | compute | tokens/s | load during it |\n| --- | --- | ---: | ---: |\n');
  for (const [i, { who, what }] of list.entries()) {
    process.stdout.write(`| ${who} | ${what} | ${best[i].speed.toFixed(1)} | ${best[i].load.toFixed(1)} |\n`);
  }
  return 0;
}
