// Every CUDA call and launch is checked where it is made.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/error.h"

namespace caravan::cuda {

/// @throws EngineError out_of_memory, or device_failed naming the operation and CUDA's own words.
[[noreturn]] void throw_cuda_error(cudaError_t status, const char* operation);

inline void check(cudaError_t status, const char* operation) {
  if (status != cudaSuccess) throw_cuda_error(status, operation);
}

/// After a launch: what the launch itself refused. What goes wrong while the kernel runs is found by the next
/// synchronisation.
inline void check_launch(const char* operation) { check(cudaGetLastError(), operation); }

}  // namespace caravan::cuda
