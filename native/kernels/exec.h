// Where a kernel runs: the device, its stream, and for the CPU its threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/dtype.h"
#include "kernels/error.h"

namespace caravan {

enum class Device : uint8_t { cpu, cuda };

class ThreadPool;  // kernels/cpu/thread_pool.h
namespace cuda {
class Context;  // kernels/cuda/context.h
}

/// Handed to every kernel as its first argument. On CUDA a kernel only enqueues, on the context's stream; on the CPU it
/// returns when it has finished.
struct Exec {
  Device device = Device::cpu;
  ThreadPool* pool = nullptr;     // null means the calling thread alone; also for what stays on the CPU beside CUDA
  cuda::Context* cuda = nullptr;  // device, stream and libraries; never null where device is cuda
};

/// A pool of `threads` threads, the caller's included (0: one per core the process may use).
std::shared_ptr<ThreadPool> make_thread_pool(int threads);
int thread_count(const Exec& exec);

/// Calls body(first, last) over disjoint ranges that cover [0, count), each at least `grain` long but the last.
/// How the ranges are cut may depend on the thread count: so a body must compute each element alone. A reduction over
/// `count` cuts it into blocks of fixed size itself and adds the blocks in order, so that its result does not depend
/// on the thread count. Exceptions of a body reach the caller. Calls may not nest.
void parallel_for(const Exec& exec, int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

}  // namespace caravan
