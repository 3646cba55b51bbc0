/** What an import would make of files: the guess, and sample rows as they stand beside what is read of them. */
import { stat } from 'node:fs/promises';
import { CaravanError } from '../../shared/contract/errors.ts';
import type { ImportPreview } from '../../shared/dataset/look.ts';
import { readRow } from '../formats/formats.ts';
import { describeGuess, FormatGuess } from '../formats/guessFormat.ts';
import { RowObserver } from '../formats/observeRows.ts';
import { kindOf, readHead } from '../formats/openText.ts';
import type { RawRow } from '../formats/rawRow.ts';
import { readRawRows } from '../formats/rawRows.ts';
import type { RequestParams } from '../protocol.ts';

/** Rows that the guess looks at, the first of all files, as an import does. */
const sampledRows = 200;
/** Every file shows some of its rows, of so many files at most. */
const rowsOfFile = 20;
const filesRead = 20;
/** Sound rows shown, of one file and in all, and unsound ones beside them. */
const shownRows = 12;
const shownOfFile = 6;
const shownProblems = 6;
const maxRawChars = 2000;
const maxColumns = 200;

export async function previewImport({
  files,
  format,
  mapping,
}: RequestParams<'previewImport'>): Promise<ImportPreview> {
  const described: ImportPreview['files'] = [];
  const rows: { file: string; raw: RawRow }[] = [];
  const columns = new Set<string>();
  const guess = new FormatGuess();
  for (const path of files) {
    const info = await stat(path).catch(() => null);
    if (!info) throw new CaravanError('not_found', 'there is no such file', { place: { file: path } });
    if (info.isDirectory())
      throw new CaravanError('bad_file', 'this is a folder, not a file', {
        place: { file: path },
        mend: 'Name the files in it, one a line.',
      });
    described.push({ path, bytes: info.size, kind: kindOf(await readHead(path)) });
    if (described.length > filesRead) continue;
    let read = 0;
    for await (const raw of readRawRows(path)) {
      rows.push({ file: path, raw });
      read++;
      if ('value' in raw.content) {
        if (guess.sampled < sampledRows) guess.add(raw.content.value);
        if (typeof raw.content.value === 'object' && raw.content.value !== null)
          for (const name of Object.keys(raw.content.value))
            if (columns.size < maxColumns && !Array.isArray(raw.content.value)) columns.add(name);
      }
      if (read >= rowsOfFile && (read >= sampledRows || guess.sampled >= sampledRows)) break;
    }
  }
  const guessed = guess.result();
  const read = format === 'auto' ? guessed.format : format;
  const observer = new RowObserver();
  const shown: ImportPreview['rows'] = [];
  let sound = 0;
  let unsound = 0;
  const ofFile = new Map<string, number>();
  const isShown = (file: string) => {
    const before = ofFile.get(file) ?? 0;
    if (sound >= shownRows || (files.length > 1 && before >= shownOfFile)) return false;
    ofFile.set(file, before + 1);
    sound++;
    return true;
  };
  for (const { file, raw } of rows) {
    const result = 'problem' in raw.content ? raw.content : read && readRow(raw.content.value, read, mapping);
    const value = 'value' in raw.content ? raw.content.value : null;
    const row = { file, line: raw.line, raw: clip(value === null ? '' : JSON.stringify(value, null, 2)) };
    if (result && 'row' in result) {
      observer.see(result.row, value);
      if (isShown(file))
        shown.push({
          ...row,
          label: result.row.label,
          messages: clipped(result.row.messages),
          problem: null,
        });
    } else if (result && unsound++ < shownProblems)
      shown.push({ ...row, label: '', messages: null, problem: result.problem });
    else if (!result && isShown(file)) shown.push({ ...row, label: '', messages: null, problem: null });
  }
  const notes = guessed.format === null ? [] : [describeGuess(guessed)];
  if (read !== null && rows.length > 0)
    notes.push(
      unsound === 0
        ? `${rows.length === 1 ? 'the row that was looked at reads' : `all ${rows.length} rows that were looked at read`} as ${read}`
        : `${unsound} of ${rows.length} rows that were looked at would be set aside`,
    );
  return {
    files: described,
    guess: guessed.format,
    format: read,
    notes: [...notes, ...observer.notes()],
    columns: [...columns],
    rows: shown,
  };
}

type Messages = NonNullable<ImportPreview['rows'][number]['messages']>;
function clipped(messages: Messages): Messages {
  return messages.map((message) => ({ ...message, content: clip(message.content) }));
}

function clip(text: string): string {
  return (text.length > maxRawChars ? `${text.slice(0, maxRawChars)}…` : text).toWellFormed();
}
