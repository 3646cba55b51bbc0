import * as z from 'zod';

/**
 * Every error a caller can meet, each with the exit code of the command line:
 * 1 a bug, 2 bad input, 3 the machine lacks something, 4 interrupted with state kept.
 */
export const errorCodes = {
  // bad input
  bad_option: 2,
  bad_file: 2,
  bad_config: 2,
  bad_recipe: 2,
  invalid_utf8: 2,
  tokenizer_invalid: 2,
  unsupported_architecture: 2,
  unsupported_tokenizer: 2,
  template_failed: 2,
  no_rows: 2,
  not_found: 2,
  name_taken: 2,
  wrong_state: 2,
  mix_mismatch: 2,
  model_mismatch: 2,
  does_not_fit: 2,
  // the machine
  out_of_memory: 3,
  disk_full: 3,
  cuda_unavailable: 3,
  device_failed: 3,
  missing_dependency: 3,
  permission_denied: 3,
  network_unavailable: 3,
  database_newer: 3,
  // interrupted, state kept
  interrupted: 4,
  engine_died: 4,
  host_unreachable: 4,
  cancelled: 4,
  diverged: 4,
  // access
  unauthorized: 2,
  // a bug
  internal: 1,
} as const satisfies Record<string, 0 | 1 | 2 | 3 | 4>;

export type ErrorCode = keyof typeof errorCodes;

/** Where bad input was found, as far as it is known. Lines and columns count from 1. */
export const errorPlaceSchema = z.object({
  file: z.string().optional(),
  line: z.number().int().optional(),
  column: z.number().int().optional(),
  field: z.string().optional(),
});
export type ErrorPlace = z.infer<typeof errorPlaceSchema>;

export const contractErrorSchema = z.object({
  code: z.enum(Object.keys(errorCodes) as [ErrorCode, ...ErrorCode[]]),
  message: z.string(),
  place: errorPlaceSchema.optional(),
  /** What to do about it, one sentence. */
  mend: z.string().optional(),
});
export type ContractErrorData = z.infer<typeof contractErrorSchema>;

/** The one error type that services throw and clients receive. */
export class CaravanError extends Error {
  readonly code: ErrorCode;
  readonly place: ErrorPlace | undefined;
  readonly mend: string | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    more: { place?: ErrorPlace; mend?: string; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = 'CaravanError';
    this.code = code;
    this.place = more.place;
    this.mend = more.mend;
  }

  toData(): ContractErrorData {
    return {
      code: this.code,
      message: this.message,
      ...(this.place && { place: this.place }),
      ...(this.mend && { mend: this.mend }),
    };
  }

  /** The error that `toData` was sent for. */
  static fromData({ code, message, place, mend }: ContractErrorData): CaravanError {
    return new CaravanError(code, message, { ...(place && { place }), ...(mend && { mend }) });
  }

  /** Wraps whatever was thrown; an `Error` with a known string `code` (the addon's) keeps it. */
  static from(error: unknown): CaravanError {
    if (error instanceof CaravanError) return error;
    if (error instanceof Error) {
      const code = (error as { code?: unknown }).code;
      if (typeof code === 'string' && code in errorCodes)
        return new CaravanError(code as ErrorCode, error.message, { cause: error });
      return new CaravanError('internal', error.message, { cause: error });
    }
    return new CaravanError('internal', String(error));
  }
}

export function exitCode(code: ErrorCode): number {
  return errorCodes[code];
}
