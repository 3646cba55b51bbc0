export { createChatService } from './createChatService.ts';
export type { ChatCalls, ChatDeps, ChatService } from './chatTypes.ts';
