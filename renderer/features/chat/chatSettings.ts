import { samplingSchema, type Sampling } from '../../../core/shared/chat/chat.ts';
import { useStored } from '../../composables/useStored.ts';

export interface ChatSettings {
  system: string;
  template: 'auto' | 'camelidae' | 'model';
  sampling: Sampling;
}

export const defaultSettings: ChatSettings = {
  system: '',
  template: 'auto',
  sampling: samplingSchema.parse({}),
};

/** What the next answers are made with; kept between visits. */
export function useChatSettings() {
  const stored = useStored<ChatSettings>('chat.settings', defaultSettings);
  const parsed = samplingSchema.safeParse(stored.value.sampling);
  stored.value = {
    ...defaultSettings,
    ...stored.value,
    sampling: parsed.success ? parsed.data : defaultSettings.sampling,
  };
  return stored;
}
