// Where the calls of several threads run: all share the processor's threads; on a GPU each call has a context of its
// own, since what one operation leaves in a context's workspace is read by the next kernel of the same operation.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "kernels/cuda_context.h"
#include "kernels/exec.h"

namespace caravan {

class ExecPool {
 public:
  ExecPool(Device device, int threads) : device_(device), threads_(make_thread_pool(threads)) {}

  /// Held for one call. A context that is given back serves the next.
  class Lease {
   public:
    explicit Lease(ExecPool& pool) : pool_(pool), cuda_(pool.take()) {}
    ~Lease() { pool_.give_back(std::move(cuda_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    Exec exec() const { return {pool_.device_, pool_.threads_.get(), cuda_.get()}; }

   private:
    ExecPool& pool_;
    std::shared_ptr<cuda::Context> cuda_;
  };

 private:
  std::shared_ptr<cuda::Context> take() {
    if (device_ == Device::cpu) return nullptr;
    std::lock_guard lock(mutex_);
    if (idle_.empty()) return make_cuda_context();
    std::shared_ptr<cuda::Context> context = std::move(idle_.back());
    idle_.pop_back();
    return context;
  }
  void give_back(std::shared_ptr<cuda::Context> context) {
    if (!context) return;
    std::lock_guard lock(mutex_);
    idle_.push_back(std::move(context));
  }

  Device device_;
  std::shared_ptr<ThreadPool> threads_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<cuda::Context>> idle_;
};

}  // namespace caravan
