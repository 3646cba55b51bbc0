/** What an engine build and its machine have for computing on an NVIDIA GPU. Versions of CUDA are written as "13.0". */
import * as z from 'zod';

const librarySchema = z.object({
  path: z.string().nullable(),
  version: z.string().nullable(),
  /** Which, and where it was looked for; null where it was found. */
  missing: z.string().nullable(),
});

export const cudaStatusSchema = z.object({
  /** The engine holds CUDA kernels. */
  built: z.boolean(),
  /** They were compiled for: "90a", "80-real". */
  architectures: z.array(z.string()),
  /** The CUDA that the driver must know for this build; null where not built. */
  neededCuda: z.string().nullable(),
  /** The newest CUDA that the driver knows; null: there is no driver. */
  driverCuda: z.string().nullable(),
  /** Null without NVML. */
  driverVersion: z.string().nullable(),
  /** Why no GPU can be used; null where one can. */
  unavailable: z.string().nullable(),
  devices: z.array(
    z.object({
      name: z.string(),
      computeCapability: z.string(),
      /** The build holds code that runs on it. */
      hasCode: z.boolean(),
      totalMemoryBytes: z.number(),
      freeMemoryBytes: z.number().nullable(),
    }),
  ),
  cublaslt: librarySchema,
  nvml: librarySchema,
});
export type CudaStatus = z.infer<typeof cudaStatusSchema>;
