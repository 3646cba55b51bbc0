import type { FamilyEntry, Language, Problem } from '../problem.ts';
import type { Random } from '../random.ts';
import {
  acceptedPrograms,
  functionName,
  signature,
  writeCall,
  writeFunction,
  writeValue,
} from './functionSpec.ts';
import { drawFunctionSpec } from './functionSpecs.ts';
import { drawProgram } from './programs.ts';

/** Families of small programs in Python and JavaScript, in the shape of Magicoder. */
export const codeFamilies: readonly FamilyEntry[] = [
  { task: 'write-function', weight: 12, inPretraining: true, draw: writeFunctionProblem },
  { task: 'fix-bug', weight: 7, inPretraining: true, draw: fixBugProblem },
  { task: 'what-prints', weight: 12, inPretraining: true, draw: whatPrintsProblem },
  { task: 'translate-code', weight: 7, inPretraining: false, draw: translateProblem },
  { task: 'call-result', weight: 5, inPretraining: true, draw: callResultProblem },
];

const languageNames: Record<Language, string> = { python: 'Python', javascript: 'JavaScript' };

function drawLanguage(random: Random): Language {
  return random.chance(0.55) ? 'python' : 'javascript';
}

function fence(language: Language, code: string): string {
  return `\`\`\`${language}\n${code}\n\`\`\``;
}

function writeFunctionProblem(random: Random, hard: boolean): Problem {
  const language = drawLanguage(random);
  const spec = drawFunctionSpec(random, hard);
  const name = functionName(spec, language);
  const head = `${name}(${spec.params.join(', ')})`;
  const accepted = acceptedPrograms(spec, language);
  const code = accepted[0] as string;
  const args = spec.args(random);
  const example = `${writeCall(spec, language, args)} returns ${writeValue(spec.apply(...(args as never[])), language)}`;
  const Name = languageNames[language];
  const question = random.pick([
    `Write a ${Name} function \`${head}\` that ${spec.does}.`,
    `In ${Name}, write the function \`${head}\`. It ${spec.does}.`,
    `Write a ${Name} function \`${head}\` that ${spec.does}.\n\nFor example, ${example}.`,
    `Implement \`${head}\` in ${Name} so that it ${spec.does}.`,
    `You are given a ${Name} function without its body:\n${fence(language, signature(spec, language))}\nComplete it so that it ${spec.does}.`,
  ]);
  return {
    kind: 'code',
    task: 'write-function',
    easy: !hard,
    question,
    group: `write ${language} ${head} ${spec.does}`,
    brief: code,
    answer: random.pick([
      `${fence(language, code)}\n\n${spec.explain}`,
      `Here is the function in ${Name}:\n\n${fence(language, code)}\n\n${spec.explain} For example, ${example}.`,
    ]),
    check: { by: 'code', accepted },
    language,
  };
}

function fixBugProblem(random: Random, hard: boolean): Problem {
  const language = drawLanguage(random);
  const spec = drawFunctionSpec(random, hard);
  const accepted = acceptedPrograms(spec, language);
  const code = accepted[0] as string;
  const wrong = writeFunction(spec, language, spec.bug[language]);
  const name = functionName(spec, language);
  const question = random.pick([
    `This ${languageNames[language]} function has a bug. It should be a function that ${spec.does}. Fix it.\n\n${fence(language, wrong)}`,
    `Fix the bug in \`${name}\`, a function that ${spec.does}:\n${fence(language, wrong)}`,
    `${fence(language, wrong)}\nThe code above is wrong: we want a function that ${spec.does}. Write the correct function.`,
  ]);
  return {
    kind: 'code',
    task: 'fix-bug',
    easy: !hard,
    question,
    group: `fix ${language} ${wrong} ${spec.does}`,
    brief: code,
    answer: `The function is wrong because ${spec.bug.reason}. Here is the corrected function:\n\n${fence(language, code)}\n\n${spec.explain}`,
    check: { by: 'code', accepted },
    language,
  };
}

function whatPrintsProblem(random: Random, hard: boolean): Problem {
  const language = drawLanguage(random);
  const program = drawProgram(random, language, hard);
  const code = program.lines.join('\n');
  return {
    kind: 'code',
    task: 'what-prints',
    easy: !hard,
    question: random.pick([
      `What does this ${languageNames[language]} program print?\n\n${fence(language, code)}`,
      `${fence(language, code)}\nWhat is the output of this code?`,
      `Read the ${languageNames[language]} code and tell what it prints.\n${fence(language, code)}`,
      `What will be printed when this code runs?\n${fence(language, code)}`,
    ]),
    group: `prints ${code}`,
    brief: program.output,
    answer: `${program.trace}\nThe program prints:\n\`\`\`\n${program.output}\n\`\`\``,
    check: { by: 'output', value: program.output },
    language,
  };
}

function translateProblem(random: Random, hard: boolean): Problem {
  const language = drawLanguage(random);
  const other: Language = language === 'python' ? 'javascript' : 'python';
  const spec = drawFunctionSpec(random, hard);
  const accepted = acceptedPrograms(spec, language);
  const code = accepted[0] as string;
  const source = writeFunction(spec, other, spec[other][0] as string);
  return {
    kind: 'code',
    task: 'translate-code',
    easy: false,
    question: random.pick([
      `Translate this ${languageNames[other]} function into ${languageNames[language]}:\n${fence(other, source)}`,
      `Rewrite the following function in ${languageNames[language]}.\n\n${fence(other, source)}`,
    ]),
    group: `translate ${language} ${source}`,
    brief: code,
    answer: `In ${languageNames[language]} the function looks like this:\n\n${fence(language, code)}\n\n${spec.explain}`,
    check: { by: 'code', accepted },
    language,
  };
}

function callResultProblem(random: Random, hard: boolean): Problem {
  const language = drawLanguage(random);
  const spec = drawFunctionSpec(random, hard);
  const args = spec.args(random);
  const result = writeValue(spec.apply(...(args as never[])), language);
  const code = writeFunction(spec, language, random.pick(spec[language]));
  const call = writeCall(spec, language, args);
  return {
    kind: 'code',
    task: 'call-result',
    easy: !hard,
    question: random.pick([
      `Given this ${languageNames[language]} function:\n${fence(language, code)}\nWhat does \`${call}\` return?`,
      `${fence(language, code)}\nWhat is the result of \`${call}\`?`,
    ]),
    group: `call ${code} ${call}`,
    brief: result,
    answer: `${spec.explain} With ${args.map((arg) => writeValue(arg, language)).join(' and ')} as input, the call returns:\n${fence(language, result)}`,
    check: { by: 'output', value: result },
    language,
  };
}
