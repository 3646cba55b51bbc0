#include "kernels/cpu/tasks.h"

#include <memory>
#include <new>

#include "kernels/cpu/thread_pool.h"

namespace caravan::cpu {
namespace {

struct Free {
  void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
};

struct Memory {
  std::unique_ptr<float[], Free> floats;
  int64_t capacity = 0;
};

}  // namespace

void run_tasks(const Exec& exec, int64_t tasks, const std::function<void(int64_t)>& task) {
  if (exec.pool != nullptr) return exec.pool->run(tasks, task);
  for (int64_t i = 0; i < tasks; ++i) task(i);
}

float* scratch(Scratch use, int64_t floats) {
  thread_local Memory memories[2];
  Memory& memory = memories[static_cast<int>(use)];
  if (floats > memory.capacity) {
    memory.floats.reset();
    memory.capacity = 0;
    const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
    memory.floats.reset(static_cast<float*>(::operator new[](bytes, std::align_val_t{64})));
    memory.capacity = floats;
  }
  return memory.floats.get();
}

}  // namespace caravan::cpu
