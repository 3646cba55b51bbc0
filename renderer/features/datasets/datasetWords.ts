/** What datasets are called and counted in, for all of their screens. */
import type { DatasetRef } from '../../../core/shared/dataset/look.ts';
import type { RejectReason, SourceFormat } from '../../../core/shared/dataset/source.ts';

export const reasonWords: Partial<Record<RejectReason, string>> & Record<string, string> = {
  malformed_json: 'Not valid JSON',
  malformed_csv: 'Not valid CSV',
  invalid_utf8: 'Not valid UTF-8',
  row_too_long: 'Row over 16 MiB',
  too_complex: 'Too deeply nested',
  damaged_file: 'File is damaged',
  bad_text: 'Characters that no text has',
  wrong_type: 'Wrong type',
  missing_field: 'Field is missing',
  empty_prompt: 'Empty prompt',
  empty_answer: 'Empty answer',
  no_assistant_turn: 'No answer to learn from',
  bad_role_order: 'Turns out of order',
  duplicate: 'Duplicate',
  near_duplicate: 'Near-duplicate',
  filtered: 'Filtered',
  refusal: 'Refusal',
  boilerplate: 'Boilerplate',
  language: 'Other language',
  contaminated: 'Holds a benchmark’s words',
  not_sampled: 'Not drawn',
  held_out_group: 'Its group is held out',
  prompt_too_long: 'No trained token left',
};
export const reasonWord = (reason: string): string => reasonWords[reason] ?? reason;

export const formatWords: Record<SourceFormat, string> = {
  auto: 'Guess from the file',
  reference: 'Reference training JSON',
  messages: 'Chat messages',
  sharegpt: 'ShareGPT, SlimOrca',
  alpaca: 'Alpaca',
  'question-answer': 'Question and answer',
  'prompt-completion': 'Prompt and completion',
  'instruction-response': 'Instruction and response',
  'problem-solution': 'Problem and solution',
  'query-response': 'MetaMathQA',
  text: 'Raw text',
  mapping: 'Own columns',
};

export const exactCount = (value: number): string => value.toLocaleString('en');
export const datasetPath = ({ kind, id }: DatasetRef): string =>
  `/datasets/${kind === 'source' ? 'sources' : 'mixes'}/${id}`;
/** A row without a label of its own. */
export const labelWord = (name: string): string => (name === '' ? 'no label' : name);
