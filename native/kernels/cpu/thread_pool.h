// A fixed set of threads that share the tasks of one job at a time with the thread that hands it in.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace caravan {

/// Workers spin for some microseconds after a job, because kernels follow each other closely, and then sleep.
class ThreadPool {
 public:
  /// `threads` counts the caller of `run`, so `threads - 1` are started.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls task(i) once for every i in [0, tasks), in rising order of start, and returns when all have ended. The first
  /// exception is rethrown here; tasks not yet begun are then left out. Jobs of several callers take turns; a job
  /// handed in from inside a task runs on the calling thread alone.
  void run(int64_t tasks, const std::function<void(int64_t)>& task);

 private:
  void work();
  bool take_one(uint64_t& ticket);
  void finish_one();
  void execute(int64_t index);

  // The whole state of a job's hand-out in one word, so that taking a task is one compare-and-swap and a worker that
  // wakes late can only take what is really there: tasks in the upper half, next task in the lower.
  std::atomic<uint64_t> ticket_{0};
  std::atomic<uint32_t> unfinished_{0};
  std::atomic<uint32_t> wake_ups_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> failed_{false};
  const std::function<void(int64_t)>* task_ = nullptr;
  std::exception_ptr failure_;
  std::mutex failure_mutex_;
  std::mutex callers_;
  std::vector<std::thread> workers_;
};

}  // namespace caravan
