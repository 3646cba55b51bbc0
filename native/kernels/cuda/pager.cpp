#include "kernels/pager.h"

#include <cstring>
#include <string>

#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"

namespace caravan {

PinnedBuffer::PinnedBuffer(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  const cudaError_t status = cudaMallocHost(reinterpret_cast<void**>(&data_), bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw EngineError("out_of_memory",
                      "no pinned host memory for a buffer of " + std::to_string(bytes) +
                          " bytes; close other programs, raise the limit of locked memory (ulimit -l), "
                          "or use an optimizer that is not paged");
  }
  cuda::check(status, "cudaMallocHost");
  std::memset(data_, 0, bytes);
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

struct Pager::Streams {
  cudaStream_t compute = nullptr;
  cudaStream_t in = nullptr;
  cudaStream_t out = nullptr;
  cudaEvent_t fetched[slots] = {};
  cudaEvent_t computed[slots] = {};
  cudaEvent_t stored[slots] = {};
};

Pager::Pager(const Exec& exec) : streams_(std::make_unique<Streams>()) {
  streams_->compute = exec.cuda->stream();
  for (cudaStream_t* stream : {&streams_->in, &streams_->out}) {
    cuda::check(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  for (auto* events : {&streams_->fetched, &streams_->computed, &streams_->stored}) {
    for (cudaEvent_t& event : *events) {
      cuda::check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
    }
  }
}

Pager::~Pager() {
  cudaStreamSynchronize(streams_->compute);
  for (const cudaStream_t stream : {streams_->in, streams_->out}) {
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
  }
  for (auto* events : {&streams_->fetched, &streams_->computed, &streams_->stored}) {
    for (const cudaEvent_t event : *events) cudaEventDestroy(event);
  }
}

// An event that was never recorded holds nobody up.
void Pager::begin(int slot) {
  cuda::check(cudaStreamWaitEvent(streams_->in, streams_->stored[slot], 0), "cudaStreamWaitEvent");
}

void Pager::fetch(void* device, const void* host, size_t bytes) {
  cuda::check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, streams_->in), "fetching paged state");
}

void Pager::ready(int slot) {
  cuda::check(cudaEventRecord(streams_->fetched[slot], streams_->in), "cudaEventRecord");
  cuda::check(cudaStreamWaitEvent(streams_->compute, streams_->fetched[slot], 0), "cudaStreamWaitEvent");
}

void Pager::done(int slot) {
  cuda::check(cudaEventRecord(streams_->computed[slot], streams_->compute), "cudaEventRecord");
  cuda::check(cudaStreamWaitEvent(streams_->out, streams_->computed[slot], 0), "cudaStreamWaitEvent");
}

void Pager::store(void* host, const void* device, size_t bytes) {
  cuda::check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, streams_->out), "storing paged state");
}

void Pager::stored(int slot) { cuda::check(cudaEventRecord(streams_->stored[slot], streams_->out), "cudaEventRecord"); }

void Pager::wait() { cuda::check(cudaStreamSynchronize(streams_->out), "storing paged state"); }

}  // namespace caravan
