/** Loads caravan.node: for the entries of the engine and data processes, and for tests; never for a host. */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { CaravanError } from '../shared/contract/errors.ts';
import type { Addon } from './AddonTypes.ts';

/** Beside the sources, where `npm install` builds it; CARAVAN_ADDON names another. */
export function addonPath(): string {
  return (
    process.env['CARAVAN_ADDON'] ?? fileURLToPath(new URL('../../out/native/caravan.node', import.meta.url))
  );
}

let loaded: Addon | undefined;

/** @throws `missing_dependency` where it is not built or does not load. */
export function loadAddon(): Addon {
  if (loaded) return loaded;
  const path = addonPath();
  try {
    loaded = createRequire(import.meta.url)(path) as Addon;
    return loaded;
  } catch (error) {
    throw new CaravanError(
      'missing_dependency',
      `the native addon does not load: ${(error as Error).message}`,
      {
        place: { file: path },
        mend: 'Build it with: npm run build:native',
      },
    );
  }
}
