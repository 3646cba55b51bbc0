import type { ChatDeps, ChatService } from './chatTypes.ts';

export function createChatService(_deps: ChatDeps): ChatService {
  throw new Error('landed with the next change');
}
