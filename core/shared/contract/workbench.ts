import * as z from 'zod';
import type { Carrier } from './wire.ts';

/**
 * What the page finds as `window.workbench`: the way to its host. The app's preload script sets it (a message port);
 * in a browser the page makes its own (a WebSocket at its own origin).
 */
export interface Workbench {
  readonly kind: 'app' | 'browser';
  /** A new, open carrier; rejects with a sentence where the host cannot be reached. */
  connect(): Promise<Carrier>;
  /** What only the app can do; absent in a browser. */
  readonly desktop?: Desktop;
}

/** The functions that the app's preload script gives the page, each with one purpose. */
export interface Desktop {
  /** Where a dropped file lies; empty for one that lies nowhere. Takes a `File`. */
  pathOf(file: object): string;
  /** Asks with the system's own dialog; none where it was cancelled. */
  choosePaths(what: PathKind): Promise<string[]>;
  /** Opens an https address in the browser, after asking with its host shown. */
  openLink(url: string): Promise<void>;
  /** The window's frame and the system's dialogs follow the page's theme. */
  setTheme(theme: DesktopTheme): Promise<void>;
  /** What was asked to be opened from outside: a link, a file, an entry of the menu. Earlier ones come at once. */
  onOpen(listener: (target: OpenTarget) => void): void;
}

export const pathKinds = ['datasets', 'model', 'folder'] as const;
export type PathKind = (typeof pathKinds)[number];

export const desktopThemes = ['system', 'light', 'dark'] as const;
export type DesktopTheme = (typeof desktopThemes)[number];

export const openTargetSchema = z.discriminatedUnion('kind', [
  /** One of the page's own addresses. */
  z.object({ kind: z.literal('route'), path: z.string().startsWith('/') }),
  /** A recipe.yaml or run.yaml, whose form is filled from it; nothing is started. */
  z.object({ kind: z.enum(['recipe', 'run']), name: z.string(), text: z.string() }),
]);
export type OpenTarget = z.infer<typeof openTargetSchema>;
