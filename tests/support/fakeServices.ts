/** Services that answer from a script, for tests of what carries and guards the calls. */
import type { Services } from '../../core/host/composeServices.ts';
import { calls, type CallName } from '../../core/shared/contract/contract.ts';
import { CaravanError } from '../../core/shared/contract/errors.ts';
import type { Handlers } from '../../core/shared/contract/service.ts';

/** Every call: those that are given, the others fail with `not_found` and their own name. */
export function fakeHandlers(given: Partial<Handlers>): Handlers {
  const handlers: Record<string, unknown> = {};
  for (const name of Object.keys(calls) as CallName[])
    handlers[name] =
      given[name] ??
      (() => {
        throw new CaravanError('not_found', `nothing answers ${name}`);
      });
  return handlers as Handlers;
}

export function fakeServices(
  given: Partial<Handlers>,
  more: { isBusy?: () => boolean; close?: () => Promise<void> } = {},
): Services {
  return {
    handlers: fakeHandlers(given),
    notes: [],
    processIds: () => [],
    isBusy: more.isBusy ?? (() => false),
    close: more.close ?? (() => Promise.resolve()),
  };
}
