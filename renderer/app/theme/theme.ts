import { shallowRef, watch } from 'vue';
import { usePreferredDark } from '@vueuse/core';

/** `contrast`: light or dark as the system has it, with stronger ink and lines. */
export const themes = ['system', 'light', 'dark', 'contrast'] as const;
export type Theme = (typeof themes)[number];

export const densities = ['comfortable', 'compact'] as const;
export type Density = (typeof densities)[number];

const key = 'caravan.theme';
const densityKey = 'caravan.density';

/** The theme that was chosen; `system` follows the desktop's. public/theme.js applies it before the first paint. */
export const theme = shallowRef<Theme>(readTheme());

/** Counts up when the colours on screen have changed, so that canvases draw themselves anew. */
export const themeVersion = shallowRef(0);

export function setTheme(next: Theme): void {
  theme.value = next;
  if (next === 'system') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = next;
  try {
    if (next === 'system') localStorage.removeItem(key);
    else localStorage.setItem(key, next);
  } catch {
    // Storage is blocked: the choice holds until the page is left.
  }
  themeVersion.value++;
}

/** How close rows and controls stand. */
export const density = shallowRef<Density>(readDensity());

export function setDensity(next: Density): void {
  density.value = next;
  if (next === 'comfortable') delete document.documentElement.dataset['density'];
  else document.documentElement.dataset['density'] = next;
  try {
    if (next === 'comfortable') localStorage.removeItem(densityKey);
    else localStorage.setItem(densityKey, next);
  } catch {
    // As above.
  }
}

export function watchSystemTheme(): void {
  watch(usePreferredDark(), () => themeVersion.value++, { flush: 'post' });
}

function readTheme(): Theme {
  const named = typeof document === 'undefined' ? undefined : document.documentElement.dataset['theme'];
  return themes.find((theme) => theme === named) ?? 'system';
}

function readDensity(): Density {
  const named = typeof document === 'undefined' ? undefined : document.documentElement.dataset['density'];
  return named === 'compact' ? 'compact' : 'comfortable';
}

let probe: HTMLElement | undefined;

/** @returns a token's colour as a canvas understands it: themes and `color-mix` resolved. */
export function readColor(value: string): string {
  if (probe === undefined) {
    probe = document.createElement('span');
    probe.hidden = true;
    // Forced colours would answer every question with the text's colour.
    probe.style.setProperty('forced-color-adjust', 'none');
    document.body.append(probe);
  }
  probe.style.color = value.startsWith('--') ? `var(${value})` : value;
  return getComputedStyle(probe).color;
}
