#include "kernels/cpu/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace caravan {
namespace {

// About 20 microseconds: longer than the gap between two kernels, shorter than anybody notices on a busy machine.
constexpr int spins_before_sleep = 600;
constexpr uint64_t next_mask = 0xffffffffu;

thread_local bool inside_task = false;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

class InsideTask {
 public:
  InsideTask() { inside_task = true; }
  ~InsideTask() { inside_task = false; }
};

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  wake_ups_.fetch_add(1);
  wake_ups_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int64_t tasks, const std::function<void(int64_t)>& task) {
  if (tasks <= 0) return;
  if (tasks == 1 || workers_.empty() || inside_task) {
    for (int64_t i = 0; i < tasks; ++i) task(i);
    return;
  }
  const std::lock_guard<std::mutex> turn(callers_);
  task_ = &task;
  failed_ = false;
  failure_ = nullptr;
  unfinished_.store(static_cast<uint32_t>(tasks));
  ticket_.store(static_cast<uint64_t>(tasks) << 32);
  wake_ups_.fetch_add(1);
  wake_ups_.notify_all();

  uint64_t ticket = 0;
  while (take_one(ticket)) execute(static_cast<int64_t>(ticket & next_mask));
  for (int spins = 0; unfinished_.load() != 0; ++spins) {
    if (spins < spins_before_sleep) {
      pause();
    } else if (const uint32_t left = unfinished_.load(); left != 0) {
      unfinished_.wait(left);
    }
  }
  if (failure_) std::rethrow_exception(failure_);
}

bool ThreadPool::take_one(uint64_t& ticket) {
  ticket = ticket_.load(std::memory_order_acquire);
  while ((ticket & next_mask) < (ticket >> 32)) {
    if (ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) return true;
  }
  return false;
}

void ThreadPool::execute(int64_t index) {
  // A task of the job is unfinished until the end of this function, so `task_` and `run`'s frame stay in place.
  if (!failed_.load(std::memory_order_relaxed)) {
    const InsideTask mark;
    try {
      (*task_)(index);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failure_mutex_);
      if (!failure_) failure_ = std::current_exception();
      failed_ = true;
    }
  }
  finish_one();
}

void ThreadPool::finish_one() {
  if (unfinished_.fetch_sub(1) == 1) unfinished_.notify_all();
}

void ThreadPool::work() {
  int spins = 0;
  uint32_t seen = wake_ups_.load();
  while (!stopping_.load(std::memory_order_relaxed)) {
    uint64_t ticket = 0;
    if (take_one(ticket)) {
      execute(static_cast<int64_t>(ticket & next_mask));
      spins = 0;
    } else if (++spins < spins_before_sleep) {
      pause();
    } else {
      // `seen` was read before the last look at the ticket: a job handed in since then has changed `wake_ups_`.
      wake_ups_.wait(seen);
      spins = 0;
    }
    if (spins == 0) seen = wake_ups_.load();
  }
}

}  // namespace caravan
