// What the kernels of one device share: its stream, its properties, and memory for what an operation needs only while
// it runs.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/exec.h"

namespace caravan::cuda {

class CublasLt;  // kernels/cuda/cublaslt.h

class Context {
 public:
  explicit Context(int device);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  int device() const { return device_; }
  cudaStream_t stream() const { return stream_; }
  int multiprocessors() const { return multiprocessors_; }
  /// 80, 86, 89, 90, 100, 120.
  int compute_capability() const { return std::min(compute_capability_, most_capability_); }
  /// Kernels for older devices can be tested on a newer one: from here on this context passes for one of at most `most`.
  void limit_compute_capability(int most) { most_capability_ = most; }
  size_t max_shared_memory() const { return max_shared_memory_; }  // bytes a block may ask for

  /// Memory of at least `bytes`, 256-byte aligned, for the operation under way: the next operation on this context gets
  /// the same memory. It grows by waiting for the stream, so it has its final size after the first step.
  void* workspace(size_t bytes);
  template <typename T>
  T* workspace(int64_t count) {
    return static_cast<T*>(workspace(static_cast<size_t>(count) * sizeof(T)));
  }
  size_t workspace_bytes() const { return workspace_bytes_; }

  /// Enqueues a copy from pageable memory, which may change at once, without waiting for the stream: through pinned memory
  /// of our own, which CUDA itself would wait for, filled by the Exec's threads. Waits only where more is under way than
  /// that memory holds.
  void upload(const Exec& exec, void* to, const void* from, size_t bytes);

  /// nf4_code (16), then dynamic_code_signed (256), on the device.
  const float* nf4_tables() const { return nf4_tables_; }

  /// Null where the library is missing, or was told not to be used: products then run on our own kernels.
  CublasLt* cublaslt() const { return use_cublaslt_ ? cublaslt_.get() : nullptr; }
  void use_cublaslt(bool use) { use_cublaslt_ = use; }
  /// Whether Hopper's own instructions are used where the device and the build have them.
  bool uses_wgmma() const { return use_wgmma_; }
  void use_wgmma(bool use) { use_wgmma_ = use; }

 private:
  int device_ = 0;
  cudaStream_t stream_ = nullptr;
  int multiprocessors_ = 0;
  int compute_capability_ = 0;
  int most_capability_ = 1000;
  size_t max_shared_memory_ = 0;
  /// Pinned memory in two halves: one is filled while what was enqueued from the other runs.
  struct Staging {
    char* memory = nullptr;
    size_t used = 0;  // of the half in use
    int half = 0;
    cudaEvent_t copied[2] = {};
  };

  Staging staging_;
  void* workspace_ = nullptr;
  size_t workspace_bytes_ = 0;
  float* nf4_tables_ = nullptr;
  std::unique_ptr<CublasLt> cublaslt_;
  bool use_cublaslt_ = true;
  bool use_wgmma_ = true;
};

inline cudaStream_t stream_of(const Exec& exec) { return exec.cuda->stream(); }

}  // namespace caravan::cuda
