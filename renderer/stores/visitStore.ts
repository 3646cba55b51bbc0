import { defineStore } from 'pinia';
import { useStored } from '../composables/useStored.ts';

export interface Visit {
  kind: 'run' | 'chat';
  id: string;
  path: string;
  at: number;
}

/** The runs and chats that were looked at last, for "continue where you were". */
export const useVisitStore = defineStore('visit', () => {
  const visits = useStored<Visit[]>('visits', []);

  function visited(visit: Visit): void {
    visits.value = [visit, ...visits.value.filter((other) => other.id !== visit.id)].slice(0, 6);
  }
  return { visits, visited };
});
