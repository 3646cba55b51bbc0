// What one session computes with: the processor's threads, and on a GPU its context. Made before every buffer of the
// session, and gone after them.
#pragma once

#include <memory>
#include <string>

#include "kernels/cuda_context.h"
#include "kernels/exec.h"

namespace caravan {

/// A device as options name it: "cpu", "cuda" (the first GPU), "cuda:1".
struct DevicePlace {
  Device device = Device::cpu;
  int index = 0;  // among CUDA's devices
};
/// `what` is what messages call the option. @throws EngineError bad_option
DevicePlace parse_device(const std::string& name, const std::string& what);

class ComputeDevice {
 public:
  ComputeDevice() = default;
  /// `threads` 0: one per core; `index`: of a GPU, as CUDA counts. @throws EngineError cuda_unavailable, saying what is
  /// missing
  ComputeDevice(Device device, int threads, int index = 0)
      : pool_(make_thread_pool(threads)), cuda_(device == Device::cuda ? make_cuda_context(index) : nullptr) {
    exec_ = {device, pool_.get(), cuda_.get()};
  }

  const Exec& exec() const { return exec_; }

 private:
  std::shared_ptr<ThreadPool> pool_;
  std::shared_ptr<cuda::Context> cuda_;
  Exec exec_;
};

}  // namespace caravan
