#include "kernels/kernel_times.h"

#include <memory>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"

namespace caravan {

namespace {

/// Events in the order of the stream; from each on, the stream works for `name`.
struct Timeline {
  struct Change {
    cudaEvent_t event;
    const char* name;
    bool is_call;
  };
  const cuda::Context* context = nullptr;
  std::vector<Change> changes;
  std::vector<const char*> under_way;  // innermost last

  ~Timeline() {
    for (const Change& change : changes) cudaEventDestroy(change.event);
  }
  void change(const char* name, bool is_call) {
    cudaEvent_t event = nullptr;
    cuda::check(cudaEventCreate(&event), "cudaEventCreate");
    changes.push_back({event, name, is_call});
    cuda::check(cudaEventRecord(event, context->stream()), "cudaEventRecord");
  }
};

std::unique_ptr<Timeline> timeline;

}  // namespace

void start_kernel_times(const Exec& exec) {
  if (exec.cuda == nullptr) throw EngineError("cuda_unavailable", "times of kernels are taken on a GPU alone");
  timeline = std::make_unique<Timeline>();
  timeline->context = exec.cuda;
  timeline->change("", false);
}

std::map<std::string, OperationTime> take_kernel_times(const Exec& exec) {
  const std::unique_ptr<Timeline> taken = std::move(timeline);
  std::map<std::string, OperationTime> times;
  if (!taken) return times;
  taken->change("", false);
  cuda::check(cudaStreamSynchronize(cuda::stream_of(exec)), "cudaStreamSynchronize");
  for (size_t i = 0; i + 1 < taken->changes.size(); ++i) {
    const Timeline::Change& change = taken->changes[i];
    float milliseconds = 0.0f;
    cuda::check(cudaEventElapsedTime(&milliseconds, change.event, taken->changes[i + 1].event), "cudaEventElapsedTime");
    OperationTime& time = times[change.name];
    time.milliseconds += static_cast<double>(milliseconds);
    time.calls += change.is_call;
  }
  return times;
}

namespace cuda {

TimedOperation::TimedOperation(const Exec& exec, const char* name) {
  if (!timeline || timeline->context != exec.cuda) return;
  timed_ = true;
  timeline->under_way.push_back(name);
  timeline->change(name, true);
}

TimedOperation::~TimedOperation() {
  if (!timed_ || !timeline) return;
  timeline->under_way.pop_back();
  timeline->change(timeline->under_way.empty() ? "" : timeline->under_way.back(), false);
}

}  // namespace cuda

}  // namespace caravan
