import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import * as z from 'zod';

/** Device-independent pixels. */
export interface Bounds {
  x: number;
  y: number;
  width: number;
  height: number;
}

const stateSchema = z.object({
  bounds: z.object({ x: z.number(), y: z.number(), width: z.number(), height: z.number() }),
  maximized: z.boolean(),
});
export type WindowState = z.infer<typeof stateSchema>;

export const smallestWindow = { width: 480, height: 360 } as const;
const usualWindow = { width: 1280, height: 840 } as const;

/** @returns null where none was kept, or not in this form */
export function readWindowState(file: string): WindowState | null {
  try {
    return stateSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    return null;
  }
}

export function writeWindowState(file: string, state: WindowState): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(`${file}.tmp`, JSON.stringify(state));
  renameSync(`${file}.tmp`, file);
}

/**
 * Where the window opens: where it was, cut to the screen that shows most of it; in the middle of the first where that
 * screen is gone.
 * @param workAreas of all displays, the primary first
 */
export function placeWindow(kept: Bounds | null, workAreas: readonly Bounds[]): Bounds {
  const best = kept && workAreas.map((area) => ({ area, shown: overlap(kept, area) }));
  const most = best?.sort((a, b) => b.shown - a.shown)[0];
  const area = most !== undefined && most.shown > 0 ? most.area : workAreas[0]!;
  const visible = most !== undefined && most.shown > 0;
  const size = kept ?? usualWindow;
  const width = Math.min(Math.max(size.width, smallestWindow.width), area.width);
  const height = Math.min(Math.max(size.height, smallestWindow.height), area.height);
  const clamp = (value: number, low: number, high: number) => Math.max(low, Math.min(value, high));
  return {
    width,
    height,
    x: visible
      ? clamp(kept!.x, area.x, area.x + area.width - width)
      : area.x + Math.floor((area.width - width) / 2),
    y: visible
      ? clamp(kept!.y, area.y, area.y + area.height - height)
      : area.y + Math.floor((area.height - height) / 2),
  };
}

function overlap(a: Bounds, b: Bounds): number {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  return Math.max(0, width) * Math.max(0, height);
}
