/** What lets a download pause: it ends the request under way, and its owner starts another when it is opened again. */
export interface PauseGate {
  /** For the job's task. */
  pause(): void;
  resume(): void;
  /** Aborted at the next pause. */
  readonly untilPause: AbortSignal;
  /** Resolves at once while the gate is open. */
  opened(): Promise<void>;
}

export function createPauseGate(): PauseGate {
  let abort = new AbortController();
  let open = Promise.withResolvers<void>();
  open.resolve();
  return {
    pause() {
      open = Promise.withResolvers();
      abort.abort();
    },
    resume() {
      abort = new AbortController();
      open.resolve();
    },
    get untilPause() {
      return abort.signal;
    },
    opened: () => open.promise,
  };
}
