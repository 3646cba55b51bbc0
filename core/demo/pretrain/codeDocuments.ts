import { signature, writeCall, writeFunction, writeValue } from '../code/functionSpec.ts';
import type { FunctionSpec } from '../code/functionSpec.ts';
import { drawFunctionSpec } from '../code/functionSpecs.ts';
import { drawProgram } from '../code/programs.ts';
import type { Language } from '../problem.ts';
import type { Random } from '../random.ts';
import { capitalise } from '../world.ts';

/** Documents of program text: modules with doctests, commented functions, scripts with their output, sessions. */
export function codeDocument(random: Random): string {
  const language: Language = random.chance(0.55) ? 'python' : 'javascript';
  switch (random.int(0, 3)) {
    case 0:
    case 1:
      return moduleText(random, language);
    case 2:
      return scripts(random, language);
    default:
      return language === 'python' ? session(random) : scripts(random, language);
  }
}

function moduleText(random: Random, language: Language): string {
  const blocks: string[] = [];
  for (let i = random.int(1, 4); i > 0; i--) {
    const spec = drawFunctionSpec(random, random.chance(0.35));
    blocks.push(language === 'python' ? pythonFunction(random, spec) : javascriptFunction(random, spec));
  }
  return blocks.join(language === 'python' ? '\n\n\n' : '\n\n');
}

function summary(spec: FunctionSpec): string {
  return `${capitalise(spec.does).replaceAll('`', '')}.`;
}

function pythonFunction(random: Random, spec: FunctionSpec): string {
  const text = writeFunction(spec, 'python', random.pick(spec.python));
  if (random.chance(0.3)) return `# ${summary(spec)}\n${text}`;
  const args = spec.args(random);
  const doctest = random.chance(0.6)
    ? `\n\n    >>> ${writeCall(spec, 'python', args)}\n    ${writeValue(spec.apply(...(args as never[])), 'python')}\n    `
    : '';
  const head = signature(spec, 'python');
  return `${head}\n    """${summary(spec)}${doctest}"""${text.slice(head.length)}`;
}

function javascriptFunction(random: Random, spec: FunctionSpec): string {
  const text = writeFunction(spec, 'javascript', random.pick(spec.javascript));
  const args = spec.args(random);
  const example = random.chance(0.6)
    ? `\n// ${writeCall(spec, 'javascript', args)} -> ${writeValue(spec.apply(...(args as never[])), 'javascript')}`
    : '';
  return `// ${summary(spec)}${example}\n${text}`;
}

function scripts(random: Random, language: Language): string {
  const comment = language === 'python' ? '#' : '//';
  const blocks: string[] = [];
  for (let i = random.int(2, 4); i > 0; i--) {
    const program = drawProgram(random, language, random.chance(0.4));
    const code = program.lines.join('\n');
    blocks.push(
      random.chance(0.5)
        ? `${code}\n${comment} Output:\n${program.output
            .split('\n')
            .map((line) => `${comment} ${line}`)
            .join('\n')}`
        : `Code:\n${code}\nOutput:\n${program.output}`,
    );
  }
  return blocks.join('\n\n');
}

/** An interactive Python session. */
function session(random: Random): string {
  const lines: string[] = [];
  const wanted = random.int(8, 16);
  while (lines.length < wanted) {
    const spec = drawFunctionSpec(random, false);
    const args = spec.args(random);
    const body = spec.python[0] as string;
    if (body.includes('\n')) continue;
    spec.params.forEach((param, at) => lines.push(`>>> ${param} = ${writeValue(args[at] ?? 0, 'python')}`));
    lines.push(`>>> ${body.replace('return ', '')}`, writeValue(spec.apply(...(args as never[])), 'python'));
  }
  return lines.join('\n');
}
