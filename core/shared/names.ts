import { CaravanError } from './contract/errors.ts';

/** The wanted name, or with the first number behind it that makes it free: `demo`, `demo-2`, `demo-3`. */
export function freeName(wanted: string, isTaken: (name: string) => boolean): string {
  if (!isTaken(wanted)) return wanted;
  for (let n = 2; ; n++) if (!isTaken(`${wanted}-${n}`)) return `${wanted}-${n}`;
}

/**
 * Names must not be mistaken for paths or run references.
 * @throws `bad_option`
 */
export function checkName(name: string, field = 'name'): void {
  const problem =
    name.trim() !== name || name === ''
      ? 'begins or ends with a blank'
      : /[/\\]/.test(name)
        ? 'holds a slash, so that it would be taken for a folder'
        : name.startsWith('run:')
          ? 'begins with run:, which stands for runs'
          : name.length > 200
            ? 'is longer than 200 characters'
            : null;
  if (problem)
    throw new CaravanError('bad_option', `the name '${name.slice(0, 200)}' ${problem}`, {
      place: { field },
      mend: 'Choose another name.',
    });
}
