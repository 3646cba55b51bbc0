import type { Carrier } from '../../shared/contract/wire.ts';

/** A carrier that tells how far its peer lags behind. */
export interface BufferedCarrier extends Carrier {
  /** Bytes sent that the peer's machine has not taken yet; 0 where the carrier cannot know. */
  readonly bufferedBytes: number;
  /** Called when little is left in the buffer after it had been full. */
  onDrain(listener: () => void): void;
}

/** The largest call a host takes: what JSON.parse gets through in well under 50 ms. */
export const maxCallBytes = 8 * 1024 * 1024;

/** The largest answer a client takes from the host it trusts; pages of long rows come near 16 MiB. */
export const maxAnswerBytes = 256 * 1024 * 1024;
