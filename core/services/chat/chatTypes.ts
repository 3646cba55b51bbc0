import type { Engines } from '../../engine/client.ts';
import type { Clock } from '../../shared/clock.ts';
import type { EmitEvent, Service } from '../../shared/contract/service.ts';
import type { Store } from '../../store/openStore.ts';
import type { Models } from '../models/index.ts';

export type ChatCalls =
  | 'listThreads'
  | 'readThread'
  | 'searchThreads'
  | 'updateThread'
  | 'branchThread'
  | 'removeThread'
  | 'renderPrompt'
  | 'routeTokens'
  | 'createThread'
  | 'generateAnswer'
  | 'completeText'
  | 'cancelAnswer'
  | 'score'
  | 'route';

export interface ChatDeps {
  store: Store;
  emit: EmitEvent;
  engines: Engines;
  models: Models;
  clock?: Clock;
}

export type ChatService = Service<ChatCalls>;
