// Work that a GPU does again and again in the same shape: recorded once as a CUDA graph, then launched as one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/exec.h"

namespace caravan {

class CapturedWork {
 public:
  CapturedWork();
  ~CapturedWork();
  CapturedWork(const CapturedWork&) = delete;
  CapturedWork& operator=(const CapturedWork&) = delete;

  /// Does what `enqueue` enqueues on `exec`. All that it depends on beside the contents of device memory (shapes,
  /// addresses) must be in `key`, and it may neither allocate nor wait once it has run with that key before: the first
  /// run enqueues, the second is recorded, and all later ones launch the record. On the CPU every run is `enqueue`.
  void run(const Exec& exec, const std::vector<uint64_t>& key, const std::function<void()>& enqueue);

  /// False: every run enqueues.
  void allow(bool capture) { allowed_ = capture; }
  /// Runs that launched a record.
  int64_t launches() const { return launches_; }

 private:
  struct Records;
  std::unique_ptr<Records> records_;
  bool allowed_ = true;
  int64_t launches_ = 0;
};

}  // namespace caravan
