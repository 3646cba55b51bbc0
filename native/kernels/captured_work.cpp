#include "kernels/captured_work.h"

#ifdef CARAVAN_CUDA

#include <map>

#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"

namespace caravan {

namespace {

/// Records kept: with more, all are made anew.
constexpr size_t most_records = 64;

class Graph {
 public:
  Graph() = default;
  Graph(Graph&& other) noexcept : exec_(other.exec_) { other.exec_ = nullptr; }
  Graph& operator=(Graph&&) = delete;
  ~Graph() {
    if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
  }

  explicit operator bool() const { return exec_ != nullptr; }
  void launch(cudaStream_t stream) { cuda::check(cudaGraphLaunch(exec_, stream), "cudaGraphLaunch"); }

  void record(cudaStream_t stream, const std::function<void()>& enqueue) {
    // Relaxed: other threads load models and grow caches while this one records.
    cuda::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
    cudaGraph_t graph = nullptr;
    try {
      enqueue();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    cuda::check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    const cudaError_t made = cudaGraphInstantiate(&exec_, graph, 0);
    cudaGraphDestroy(graph);
    cuda::check(made, "cudaGraphInstantiate");
  }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

}  // namespace

struct CapturedWork::Records {
  std::map<std::vector<uint64_t>, Graph> graphs;
};

void CapturedWork::run(const Exec& exec, const std::vector<uint64_t>& key, const std::function<void()>& enqueue) {
  if (exec.device == Device::cpu || !allowed_) return enqueue();
  // An operation's workspace is an address too; it moves when another operation needs a larger one.
  std::vector<uint64_t> whole = key;
  whole.push_back(reinterpret_cast<uint64_t>(exec.cuda->workspace(0)));
  whole.push_back(exec.cuda->workspace_bytes());
  const auto found = records_->graphs.find(whole);
  if (found == records_->graphs.end()) {
    enqueue();
    if (records_->graphs.size() >= most_records) records_->graphs.clear();
    whole[key.size()] = reinterpret_cast<uint64_t>(exec.cuda->workspace(0));
    whole[key.size() + 1] = exec.cuda->workspace_bytes();
    records_->graphs.try_emplace(whole);
    return;
  }
  if (!found->second) found->second.record(exec.cuda->stream(), enqueue);
  found->second.launch(exec.cuda->stream());
  ++launches_;
}

#else

namespace caravan {

struct CapturedWork::Records {};

void CapturedWork::run(const Exec&, const std::vector<uint64_t>&, const std::function<void()>& enqueue) { enqueue(); }

#endif

CapturedWork::CapturedWork() : records_(std::make_unique<Records>()) {}
CapturedWork::~CapturedWork() = default;

}  // namespace caravan
