// What one session computes with: the processor's threads, and on a GPU its context. Made before every buffer of the
// session, and gone after them.
#pragma once

#include <memory>

#include "kernels/cuda_context.h"
#include "kernels/exec.h"

namespace caravan {

class ComputeDevice {
 public:
  ComputeDevice() = default;
  /// `threads` 0: one per core. @throws EngineError cuda_unavailable, saying what is missing
  ComputeDevice(Device device, int threads)
      : pool_(make_thread_pool(threads)), cuda_(device == Device::cuda ? make_cuda_context() : nullptr) {
    exec_ = {device, pool_.get(), cuda_.get()};
  }

  const Exec& exec() const { return exec_; }

 private:
  std::shared_ptr<ThreadPool> pool_;
  std::shared_ptr<cuda::Context> cuda_;
  Exec exec_;
};

}  // namespace caravan
