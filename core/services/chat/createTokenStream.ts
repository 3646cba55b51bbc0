/** Gathers an answer's tokens: at 500 a second nobody needs a message for each. */
export interface TokenStream {
  /** `tokens`: how many there are so far. */
  push(text: string, tokens: number): void;
  /** Sends what waits. */
  flush(): void;
  readonly text: string;
}

/** About two frames of a screen. */
const sendEveryMs = 33;

export function createTokenStream(
  send: (text: string, tokens: number) => void,
  now: () => number,
): TokenStream {
  let whole = '';
  let waiting = '';
  let count = 0;
  let sentAt = -Infinity;
  let timer: ReturnType<typeof setTimeout> | null = null;

  function flush(): void {
    if (timer) clearTimeout(timer);
    timer = null;
    if (waiting === '') return;
    const text = waiting;
    waiting = '';
    sentAt = now();
    send(text, count);
  }

  return {
    push(text, tokens) {
      whole += text;
      waiting += text;
      count = tokens;
      if (now() - sentAt >= sendEveryMs) flush();
      else timer ??= setTimeout(flush, sendEveryMs);
    },
    flush,
    get text() {
      return whole;
    },
  };
}
