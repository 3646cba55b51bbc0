/** Times and remainders as the window says them. */
import { formatDuration } from '../../core/shared/format.ts';

/** How long ago: "just now", "4 min ago", "3 h ago", "yesterday", then the date. */
export function formatAge(at: number, now: number): string {
  const seconds = Math.max(0, now - at) / 1000;
  if (seconds < 45) return 'just now';
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 86_400) return `${Math.round(seconds / 3600)} h ago`;
  if (seconds < 2 * 86_400) return 'yesterday';
  if (seconds < 14 * 86_400) return `${Math.floor(seconds / 86_400)} d ago`;
  return new Date(at).toLocaleDateString('en', { day: 'numeric', month: 'short', year: 'numeric' });
}

/** An estimate, as coarse as it is sure: "about 12 min", "about 40 s", "less than 10 s". */
export function formatEta(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 10) return 'less than 10 s';
  if (seconds < 55) return `about ${Math.ceil(seconds / 10) * 10} s`;
  if (seconds < 3600) return `about ${Math.max(1, Math.round(seconds / 60))} min`;
  return `about ${formatDuration(Math.round(ms / 300_000) * 300_000)}`;
}
