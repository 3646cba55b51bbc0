/** Shortcuts are written as `Mod+Shift+P` (Mod: Ctrl, or Command on a Mac) or as a sequence of keys, `G R`. */

export const isMac = typeof navigator !== 'undefined' && /Mac|iPhone|iPad/.test(navigator.userAgent);

/** @returns the shortcut's keys as they are printed on this machine's keyboard */
export function shortcutKeys(shortcut: string, mac = isMac): string[] {
  return shortcut
    .split(/[+ ]/)
    .map((key) =>
      key === 'Mod' ? (mac ? '⌘' : 'Ctrl') : key === 'Shift' && mac ? '⇧' : key === 'Alt' && mac ? '⌥' : key,
    );
}

export interface KeyPress {
  key: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
  shiftKey: boolean;
}

/** Whether a key press is `shortcut`, a chord with modifiers. */
export function matchesChord(press: KeyPress, shortcut: string, mac = isMac): boolean {
  const parts = shortcut.split('+');
  const key = parts.at(-1)!;
  const mod = mac ? press.metaKey : press.ctrlKey;
  const other = mac ? press.ctrlKey : press.metaKey;
  return (
    press.key.toLowerCase() === key.toLowerCase() &&
    mod === parts.includes('Mod') &&
    !other &&
    press.altKey === parts.includes('Alt') &&
    press.shiftKey === parts.includes('Shift')
  );
}

/**
 * Recognises sequences of plain keys.
 * @param windowMs how long a sequence may take between keys
 * @returns a function that takes each key and answers the sequence that it completes
 */
export function createSequenceReader(sequences: () => string[], windowMs = 900) {
  let typed: string[] = [];
  let last = 0;
  return (key: string, at: number): string | undefined => {
    if (at - last > windowMs) typed = [];
    last = at;
    typed = [...typed, key.toUpperCase()];
    const all = sequences().map((sequence) => ({ sequence, keys: sequence.toUpperCase().split(' ') }));
    while (typed.length > 0) {
      const candidates = all.filter(({ keys }) => typed.every((pressed, index) => keys[index] === pressed));
      const complete = candidates.find(({ keys }) => keys.length === typed.length);
      if (complete) {
        typed = [];
        return complete.sequence;
      }
      if (candidates.length > 0) return undefined;
      typed = typed.slice(1);
    }
    return undefined;
  };
}
