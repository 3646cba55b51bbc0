#include "kernels/exec.h"

#include <algorithm>
#include <string>
#include <thread>

#include "kernels/cpu/thread_pool.h"
#include "kernels/dispatch.h"

namespace caravan {
namespace {

// Several chunks per thread, so that a thread which the machine holds back does not hold back the rest.
constexpr int64_t chunks_per_thread = 4;

}  // namespace

std::shared_ptr<ThreadPool> make_thread_pool(int threads) {
  if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::make_shared<ThreadPool>(threads);
}

int thread_count(const Exec& exec) { return exec.pool == nullptr ? 1 : exec.pool->threads(); }

void parallel_for(const Exec& exec, int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  const int64_t threads = thread_count(exec);
  const int64_t wanted = threads == 1 ? 1 : threads * chunks_per_thread;
  const int64_t chunk = std::max(std::max<int64_t>(grain, 1), (count + wanted - 1) / wanted);
  const int64_t chunks = (count + chunk - 1) / chunk;
  if (chunks == 1) return body(0, count);
  exec.pool->run(chunks, [&](int64_t i) { body(i * chunk, std::min(count, (i + 1) * chunk)); });
}

void throw_cuda_unavailable(const char* operation) {
  throw EngineError("cuda_unavailable", std::string(operation) +
                                            ": this build holds no CUDA kernels. Install the CUDA toolkit (nvcc) and "
                                            "build again, or choose the device cpu.");
}

}  // namespace caravan
