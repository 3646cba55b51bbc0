/**
 * Charts that move with another. The one under the pointer is drawn at every frame; of those that follow one a frame, in turn,
 * so that a view with many charts moves as smoothly as one with a single chart.
 */
const waiting = new Map<object, () => void>();
let scheduled = false;

/** Draws a follower when its turn comes; asking again before that replaces what it would draw. */
export function followLater(chart: object, draw: () => void): void {
  waiting.set(chart, draw);
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(drawNext);
}

export function stopFollowing(chart: object): void {
  waiting.delete(chart);
}

function drawNext(): void {
  const [next] = waiting;
  if (!next) {
    scheduled = false;
    return;
  }
  waiting.delete(next[0]);
  next[1]();
  requestAnimationFrame(drawNext);
}
