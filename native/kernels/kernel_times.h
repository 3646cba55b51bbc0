// Where the time of a CUDA stream goes, operation by operation, for benchmarks: events around each operation that
// CARAVAN_DISPATCH forwards. An operation's time is its own: what it calls through another dispatched function is that
// one's. The events themselves cost some microseconds each, so throughput is measured without them.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "kernels/exec.h"

namespace caravan {

struct OperationTime {
  double milliseconds = 0.0;
  int64_t calls = 0;
};

/// Everything that `exec` enqueues is timed until take_kernel_times. One Exec of a process at a time.
/// @throws EngineError cuda_unavailable where `exec` is not of CUDA.
void start_kernel_times(const Exec& exec);
/// Waits, and ends the timing. "" is time between operations: gaps in which nothing was enqueued in time, and copies.
std::map<std::string, OperationTime> take_kernel_times(const Exec& exec);

namespace cuda {

/// In scope: the stream works for the operation of this name, which outlives the timing.
class TimedOperation {
 public:
  TimedOperation(const Exec& exec, const char* name);
  ~TimedOperation();
  TimedOperation(const TimedOperation&) = delete;
  TimedOperation& operator=(const TimedOperation&) = delete;

 private:
  bool timed_ = false;
};

}  // namespace cuda

}  // namespace caravan
