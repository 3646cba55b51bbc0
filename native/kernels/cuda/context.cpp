#include "kernels/cuda/context.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda_context.h"
#include "kernels/nf4.h"
#include "kernels/transfer.h"

namespace caravan {

namespace cuda {

void throw_cuda_error(cudaError_t status, const char* operation) {
  const std::string text =
      std::string(operation) + ": CUDA says " + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")";
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it is not sticky: the next call must not find it
    throw EngineError("out_of_memory", text +
                                           "; lower microBatchSize or seqLen, turn recompute on, or close what else "
                                           "uses the GPU");
  }
  throw EngineError("device_failed", text);
}

Context::Context(int device) : device_(device) {
  check(cudaSetDevice(device), "cudaSetDevice");
  int major = 0, minor = 0, shared = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  compute_capability_ = 10 * major + minor;
  max_shared_memory_ = static_cast<size_t>(shared);
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  check(cudaMalloc(reinterpret_cast<void**>(&nf4_tables_), sizeof(nf4_code) + sizeof(dynamic_code_signed)),
        "memory for NF4's tables");
  check(cudaMemcpy(nf4_tables_, nf4_code.data(), sizeof(nf4_code), cudaMemcpyHostToDevice), "NF4's tables");
  check(cudaMemcpy(nf4_tables_ + nf4_code.size(), dynamic_code_signed.data(), sizeof(dynamic_code_signed),
                   cudaMemcpyHostToDevice),
        "NF4's tables");
  if (cublaslt_library().found()) cublaslt_ = std::make_unique<CublasLt>(cublaslt_library());
}

Context::~Context() {
  if (staging_.memory != nullptr) {
    cudaStreamSynchronize(stream_);
    cudaFreeHost(staging_.memory);
    for (const cudaEvent_t event : staging_.copied) cudaEventDestroy(event);
  }
  if (workspace_ != nullptr) cudaFree(workspace_);
  if (nf4_tables_ != nullptr) cudaFree(nf4_tables_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void* Context::workspace(size_t bytes) {
  if (bytes <= workspace_bytes_) return workspace_;
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  if (workspace_ != nullptr) check(cudaFree(workspace_), "cudaFree");
  workspace_ = nullptr;
  workspace_bytes_ = 0;
  check(cudaMalloc(&workspace_, bytes), "memory for an operation's workspace");
  workspace_bytes_ = bytes;
  return workspace_;
}

void Context::upload(const Exec& exec, void* to, const void* from, size_t bytes) {
  constexpr size_t half_bytes = size_t{16} << 20;
  constexpr int64_t grain = 1 << 20;
  Staging& s = staging_;
  if (s.memory == nullptr) {
    check(cudaMallocHost(reinterpret_cast<void**>(&s.memory), 2 * half_bytes), "pinned memory for uploads");
    for (cudaEvent_t& event : s.copied) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEvent");
  }
  while (bytes > 0) {
    if (s.used == half_bytes || (s.used > 0 && s.used + std::min(bytes, half_bytes) > half_bytes)) {
      check(cudaEventRecord(s.copied[s.half], stream_), "cudaEventRecord");
      s.half = 1 - s.half;
      s.used = 0;
      check(cudaEventSynchronize(s.copied[s.half]), "upload");
    }
    const size_t piece = std::min(bytes, half_bytes - s.used);
    char* const at = s.memory + static_cast<size_t>(s.half) * half_bytes + s.used;
    parallel_for(exec, static_cast<int64_t>(piece), grain, [&](int64_t first, int64_t last) {
      std::memcpy(at + first, static_cast<const char*>(from) + first, static_cast<size_t>(last - first));
    });
    check(cudaMemcpyAsync(to, at, piece, cudaMemcpyDefault, stream_), "upload");
    s.used = std::min(half_bytes, s.used + (piece + 63) / 64 * 64);
    to = static_cast<char*>(to) + piece;
    from = static_cast<const char*>(from) + piece;
    bytes -= piece;
  }
}

void upload(const Exec& exec, void* to, const void* from, size_t bytes) { exec.cuda->upload(exec, to, from, bytes); }

// Either end may be paged state, which is host memory.
void download(const Exec& exec, void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(exec)), "download");
  check(cudaStreamSynchronize(stream_of(exec)), "download");
}

void copy_bytes(const Exec& exec, void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(exec)), "copy_bytes");
}

void zero_bytes(const Exec& exec, void* to, size_t bytes) {
  check(cudaMemsetAsync(to, 0, bytes, stream_of(exec)), "zero_bytes");
}

void synchronize(const Exec& exec) { check(cudaStreamSynchronize(stream_of(exec)), "synchronize"); }

}  // namespace cuda

void* cuda_allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaSuccess) {
    // Contexts' streams do not wait for the default stream, so this does.
    cuda::check(cudaMemset(memory, 0, bytes), "cudaMemset");
    cuda::check(cudaStreamSynchronize(nullptr), "cudaMemset");
    return memory;
  }
  size_t free = 0, total = 0;
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    cudaMemGetInfo(&free, &total);
    throw EngineError("out_of_memory", "no GPU memory for a buffer of " + std::to_string(bytes) + " bytes (" +
                                           std::to_string(free) + " of " + std::to_string(total) +
                                           " are free); lower microBatchSize or seqLen, turn recompute on, or close "
                                           "what else uses the GPU");
  }
  cuda::throw_cuda_error(status, "cudaMalloc");
}

void cuda_free(void* memory) noexcept {
  if (memory != nullptr) cudaFree(memory);
}

std::shared_ptr<cuda::Context> make_cuda_context(int device) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    cudaGetLastError();
    if (driver == 0) throw EngineError("cuda_unavailable", "device cuda: no NVIDIA driver is installed");
    throw EngineError("cuda_unavailable", "device cuda: the NVIDIA driver is for CUDA " +
                                              std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10) +
                                              ", this build needs CUDA " + std::to_string(runtime / 1000) +
                                              "; install a newer driver");
  }
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();
    throw EngineError("cuda_unavailable",
                      std::string("device cuda: no CUDA device is visible (") + cudaGetErrorString(status) + ")");
  }
  if (device >= count) {
    throw EngineError("cuda_unavailable", "device cuda:" + std::to_string(device) + ": there are " +
                                              std::to_string(count) + " CUDA devices");
  }
  return std::make_shared<cuda::Context>(device);
}

}  // namespace caravan
