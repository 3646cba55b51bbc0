/** The run that is being put together: a preset, and what was changed of it. Kept over reloads. */
import { computed } from 'vue';
import { runPresets, type RunPreset } from '../../../core/shared/run/presets.ts';
import { runConfigSchema, type RunConfig } from '../../../core/shared/run/runConfig.ts';
import {
  runDefaults,
  runFields,
  runFieldShapes,
  runGroups,
  unusedFields,
  type FieldShape,
  type RunFieldText,
  type RunGroup,
  type RunKey,
} from '../../../core/shared/run/runFields.ts';
import { useStored } from '../../composables/useStored.ts';
import { useSystemStore } from '../../stores/systemStore.ts';

export interface FormField extends RunFieldText {
  key: RunKey;
  shape: FieldShape;
  fallback: unknown;
  value: unknown;
  /** What the preset sets. */
  preset: unknown;
  /** Whether it was changed from the preset. */
  changed: boolean;
  problem: string | null;
}

const shapes = runFieldShapes();
const defaults: Record<string, unknown> = runDefaults();

export function useTrainDraft() {
  const presetId = useStored('train.preset', 'defaults');
  const changes = useStored<Record<string, unknown>>('train.changes', {});
  const systemStore = useSystemStore();

  const preset = computed<RunPreset>(
    () => runPresets.find(({ id }) => id === presetId.value) ?? runPresets[0]!,
  );
  /** A run goes to the GPU where there is one. */
  const device = computed(() =>
    systemStore.status?.devices.some(({ kind }) => kind === 'cuda') ? 'cuda' : 'cpu',
  );
  const base = computed<Record<string, unknown>>(() => ({
    ...defaults,
    device: device.value,
    ...preset.value.config,
  }));
  const input = computed<Record<string, unknown>>(() => ({ ...base.value, ...changes.value }));
  const parsed = computed(() => runConfigSchema.safeParse(input.value));
  /** Null while a field is wrong. */
  const config = computed<RunConfig | null>(() => parsed.value.data ?? null);

  const problems = computed(() => {
    const found = new Map<string, string>();
    for (const issue of parsed.value.error?.issues ?? []) {
      const key = String(issue.path[0]) as RunKey;
      if (found.has(key)) continue;
      const shape = shapes.get(key);
      found.set(
        key,
        issue.code === 'custom'
          ? issue.message
          : key === 'model' || key === 'mix'
            ? `choose a ${key}`
            : shape?.kind === 'number'
              ? `must be a ${shape.integer ? 'whole number' : 'number'}, ${shape.range}`
              : shape?.kind === 'choice'
                ? `must be one of ${shape.choices.join(', ')}`
                : issue.message,
      );
    }
    return found;
  });

  /** Of the GPUs that the engine can name, those that are here. */
  function shapeOf(key: RunKey): FieldShape {
    const shape = shapes.get(key)!;
    if (key !== 'device' || shape.kind !== 'choice') return shape;
    const known = [
      'cpu',
      'cuda',
      input.value['device'],
      ...(systemStore.status?.devices ?? []).map((one) => one.device),
    ];
    return { ...shape, choices: shape.choices.filter((choice) => known.includes(choice)) };
  }

  const groups = computed<{ group: RunGroup; fields: FormField[] }[]>(() => {
    const method = input.value['method'] as RunConfig['method'];
    const unused = unusedFields[method] ?? [];
    return runGroups.map((group) => ({
      group,
      fields: (Object.entries(runFields) as [RunKey, RunFieldText][])
        .filter(([key, field]) => field.group === group && !unused.includes(key))
        .map(([key, field]) => ({
          ...field,
          key,
          shape: shapeOf(key),
          fallback: defaults[key],
          value: input.value[key],
          preset: base.value[key],
          changed: key in changes.value && !isChoice(key),
          problem: problems.value.get(key) ?? null,
        })),
    }));
  });
  const changedCount = computed(() => Object.keys(changes.value).filter((key) => !isChoice(key)).length);

  function set(key: string, value: unknown): void {
    const { [key]: _, ...others } = changes.value;
    changes.value = value === base.value[key] ? others : { ...others, [key]: value };
  }
  /** What belongs to the run rather than to the recipe stays. */
  function reset(): void {
    changes.value = Object.fromEntries(Object.entries(changes.value).filter(([key]) => isChoice(key)));
  }
  function choosePreset(id: string): void {
    presetId.value = id;
    reset();
  }
  /** Takes a whole configuration over, from a file or an earlier run. */
  function take(values: Record<string, unknown>): void {
    presetId.value = 'defaults';
    changes.value = Object.fromEntries(
      Object.entries(values).filter(([key, value]) => value !== undefined && value !== base.value[key]),
    );
  }

  return { preset, input, config, groups, problems, changedCount, set, reset, choosePreset, take };
}
export type TrainDraft = ReturnType<typeof useTrainDraft>;

/** Which run it is, not how it trains: no preset has a say in it. */
function isChoice(key: string): boolean {
  return key === 'name' || key === 'model' || key === 'mix';
}
