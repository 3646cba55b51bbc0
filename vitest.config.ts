// Tests by tier, told apart by the file's name alone:
//   foo.test.ts          unit: no addon, no network, no sleep
//   foo.native.test.ts   the built addon, on the CPU
//   tests/foo.e2e.ts     whole processes: command line, browser
//   tests/foo.long.ts    on demand: npm run test:long
import vue from '@vitejs/plugin-vue';
import { defineConfig } from 'vitest/config';

const everywhere = ['**/node_modules/**', 'out/**', 'native/**'];

export default defineConfig({
  plugins: [vue()],
  test: {
    slowTestThreshold: 75,
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['**/*.test.ts'],
          exclude: [...everywhere, '**/*.native.test.ts'],
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'native',
          include: ['**/*.native.test.ts'],
          exclude: everywhere,
          // A crash of the addon ends one file's process and no other's.
          pool: 'forks',
          testTimeout: 60_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'e2e',
          include: ['tests/**/*.e2e.ts'],
          pool: 'forks',
          maxWorkers: 1,
          fileParallelism: false,
          testTimeout: 180_000,
          hookTimeout: 120_000,
          // Whole processes on a busy machine answer in seconds.
          expect: { poll: { timeout: 30_000 } },
          sequence: { groupOrder: 2 },
        },
      },
      {
        extends: true,
        test: {
          name: 'long',
          include: ['tests/**/*.long.ts'],
          pool: 'forks',
          maxWorkers: 1,
          fileParallelism: false,
          testTimeout: 7_200_000,
          hookTimeout: 600_000,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});
