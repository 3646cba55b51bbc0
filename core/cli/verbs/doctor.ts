import { formatBytes } from '../../shared/format.ts';
import type { Verb } from '../Verb.ts';

const marks = { ok: '✓', warning: '!', missing: '✗' } as const;

export const verb: Verb = {
  summary: 'Say what this machine has, what is missing and how to mend it.',
  usage: 'doctor [--json]',
  help: 'Exits 3 when something needed is missing.',
  options: {},
  async run({ output, connect }) {
    const client = await connect();
    const report = await client.call('doctor', {});
    output.document(report);
    for (const check of report.checks) {
      output.line(`${marks[check.status]} ${check.name.padEnd(22)} ${check.found}`);
      if (check.mend) output.line(`  ${''.padEnd(22)} → ${check.mend}`);
    }
    output.line();
    for (const device of report.devices)
      output.line(
        `${device.device}: ${device.name}, ${device.units} ${device.kind === 'cpu' ? 'cores' : 'multiprocessors'}, ` +
          `${device.freeMemoryBytes === null ? 'unknown' : formatBytes(device.freeMemoryBytes)} free of ${formatBytes(device.totalMemoryBytes)}`,
      );
    return report.checks.some((check) => check.status === 'missing') ? 3 : 0;
  },
};
