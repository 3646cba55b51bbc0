// Memory of a device and the ways between it and the host. On the CPU both are the same memory and a transfer is a copy,
// so code that stages its inputs and reads its results through here runs on either.
#pragma once

#include <cstddef>

#include "kernels/exec.h"

namespace caravan {

/// `bytes` of a GPU's memory, 256-byte aligned and zeroed; null for 0 bytes. (The CPU's buffers come from DeviceBuffer.)
/// @throws EngineError out_of_memory, naming size and what is free.
void* cuda_allocate(size_t bytes);
void cuda_free(void* memory) noexcept;

/// Host to device. `from` may be changed as soon as the call returns.
void upload(const Exec& exec, void* to, const void* from, size_t bytes);
/// Device to host; what was enqueued before has finished when it returns.
void download(const Exec& exec, void* to, const void* from, size_t bytes);
/// Within the device; the ranges do not overlap.
void copy_bytes(const Exec& exec, void* to, const void* from, size_t bytes);
void zero_bytes(const Exec& exec, void* to, size_t bytes);
/// Returns when all that was enqueued has finished; throws what went wrong on the way.
void synchronize(const Exec& exec);

}  // namespace caravan
