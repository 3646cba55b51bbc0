import { closeSync, openSync, writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { pathToFileURL } from 'node:url';
import { pretrainDocument, pretrainStages, type PretrainStage } from './pretrainText.ts';

/** Characters gathered before a write: large enough that the calls of the operating system do not count. */
const chunkChars = 1 << 20;

/**
 * Writes documents as JSON lines `{"text": ...}`.
 * @param from - index of the first document
 * @returns the bytes of text, without the JSON around them
 */
export function writePretrainText(
  file: string,
  seed: number,
  documents: number,
  from = 0,
  stage: PretrainStage = 'broad',
): number {
  const out = openSync(file, 'w');
  let textBytes = 0;
  try {
    let chunk = '';
    for (let index = from; index < from + documents; index++) {
      const text = pretrainDocument(seed, index, stage);
      // The generator writes ASCII only (a test holds it to that), so characters are bytes.
      textBytes += text.length;
      chunk += `{"text":${JSON.stringify(text)}}\n`;
      if (chunk.length >= chunkChars) {
        writeSync(out, chunk);
        chunk = '';
      }
    }
    writeSync(out, chunk);
  } finally {
    closeSync(out);
  }
  return textBytes;
}

/** Reads a command-line number or says what is wrong with it. */
function wholeNumber(name: string, text: string | undefined, least: number): number {
  const value = Number(text);
  if (text === undefined || !Number.isSafeInteger(value) || value < least) {
    throw new RangeError(
      `--${name} must be a whole number of at least ${least}, but is ${text ?? 'missing'}`,
    );
  }
  return value;
}

function stageNamed(name: string): PretrainStage {
  const stage = pretrainStages.find((known) => known === name);
  if (stage === undefined) throw new RangeError(`--stage is one of ${pretrainStages.join(', ')}, not ${name}`);
  return stage;
}

function main(): void {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string', default: '1' },
      documents: { type: 'string' },
      from: { type: 'string', default: '0' },
      stage: { type: 'string', default: 'broad' },
      out: { type: 'string' },
    },
  });
  if (values.out === undefined) throw new RangeError('--out FILE is missing');
  const documents = wholeNumber('documents', values.documents, 1);
  const started = performance.now();
  const bytes = writePretrainText(
    values.out,
    wholeNumber('seed', values.seed, 0),
    documents,
    wholeNumber('from', values.from, 0),
    stageNamed(values.stage),
  );
  const seconds = (performance.now() - started) / 1000;
  console.error(
    `${values.out}: ${documents} documents, ${(bytes / 1e6).toFixed(1)} MB of text in ${seconds.toFixed(1)} s (${(bytes / 1e6 / seconds).toFixed(1)} MB/s)`,
  );
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    main();
  } catch (error) {
    console.error(`writePretrainText: ${error instanceof Error ? error.message : String(error)}`);
    console.error(
      'usage: node core/demo/writePretrainText.ts --seed S --documents N --out FILE [--from INDEX] [--stage broad|questions]',
    );
    process.exitCode = 2;
  }
}
