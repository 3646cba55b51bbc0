/** Numbers as people read them, the same in the window and on the command line. */

const counts = [
  [1e12, 'T'],
  [1e9, 'B'],
  [1e6, 'M'],
  [1e4, 'k'],
] as const;

/** 950 -> "950", 12,345 -> "12.3k", 7,813,206,016 -> "7.81B". */
export function formatCount(value: number): string {
  for (const [unit, letter] of counts)
    if (Math.abs(value) >= unit) {
      const divisor = letter === 'k' ? 1e3 : unit;
      return `${trim(value / divisor)}${letter}`;
    }
  return Number.isInteger(value) ? value.toLocaleString('en') : trim(value);
}

function trim(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(digits);
}

/** Binary units: 1536 -> "1.50 KiB". */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? `${value} B` : `${trim(value)} ${units[unit]}`;
}

/** 950 -> "0.9 s", 65,000 -> "1 min 5 s", 7,500,000 -> "2 h 5 min". */
export function formatDuration(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A share as a percentage with one digit: 0.0314 -> "3.1 %". */
export function formatShare(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

/** A loss or norm: four significant digits; null (not finite) as a word. */
export function formatMetric(value: number | null): string {
  if (value === null) return 'not finite';
  if (value === 0) return '0';
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e5 ? value.toPrecision(4) : value.toExponential(2);
}
