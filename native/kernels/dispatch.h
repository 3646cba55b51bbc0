// How an operation reaches the device it was called for. The public function of each header forwards to a twin of the
// same name and signature in caravan::cpu (always built) or caravan::cuda (built where nvcc is):
//
//   CARAVAN_TWINS(rope_apply)
//   void rope_apply(const Exec& exec, Ptr x, ...) { CARAVAN_DISPATCH(rope_apply, exec, x, ...); }
//
// The twins are declared from the public function's own type, so the three cannot drift apart.
#pragma once

#include "kernels/kernel_times.h"

namespace caravan {

/// @throws EngineError cuda_unavailable: this build holds no CUDA kernels.
[[noreturn]] void throw_cuda_unavailable(const char* operation);

}  // namespace caravan

#define CARAVAN_TWINS(op)          \
  namespace cpu {                  \
  extern decltype(caravan::op) op; \
  }                                \
  namespace cuda {                 \
  extern decltype(caravan::op) op; \
  }

#ifdef CARAVAN_CUDA
#define CARAVAN_DISPATCH(op, exec, ...)                         \
  if ((exec).device == Device::cuda) {                          \
    const caravan::cuda::TimedOperation operation((exec), #op); \
    return caravan::cuda::op((exec), __VA_ARGS__);              \
  }                                                             \
  return caravan::cpu::op((exec), __VA_ARGS__)
#else
#define CARAVAN_DISPATCH(op, exec, ...)                           \
  if ((exec).device == Device::cuda) throw_cuda_unavailable(#op); \
  return caravan::cpu::op((exec), __VA_ARGS__)
#endif
