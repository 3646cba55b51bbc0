#include "kernels/transfer.h"

#include <cstring>

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(upload)
CARAVAN_TWINS(download)
CARAVAN_TWINS(copy_bytes)
CARAVAN_TWINS(zero_bytes)
namespace cuda {
void synchronize(const Exec& exec);
}

namespace cpu {

void upload(const Exec& exec, void* to, const void* from, size_t bytes) {
  constexpr int64_t grain = 1 << 20;
  parallel_for(exec, static_cast<int64_t>(bytes), grain, [&](int64_t first, int64_t last) {
    std::memcpy(static_cast<char*>(to) + first, static_cast<const char*>(from) + first,
                static_cast<size_t>(last - first));
  });
}
void download(const Exec&, void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void copy_bytes(const Exec&, void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void zero_bytes(const Exec&, void* to, size_t bytes) {
  if (bytes > 0) std::memset(to, 0, bytes);
}

}  // namespace cpu

void upload(const Exec& exec, void* to, const void* from, size_t bytes) {
  CARAVAN_DISPATCH(upload, exec, to, from, bytes);
}
void download(const Exec& exec, void* to, const void* from, size_t bytes) {
  CARAVAN_DISPATCH(download, exec, to, from, bytes);
}
void copy_bytes(const Exec& exec, void* to, const void* from, size_t bytes) {
  CARAVAN_DISPATCH(copy_bytes, exec, to, from, bytes);
}
void zero_bytes(const Exec& exec, void* to, size_t bytes) { CARAVAN_DISPATCH(zero_bytes, exec, to, bytes); }

void synchronize(const Exec& exec) {
#ifdef CARAVAN_CUDA
  if (exec.device == Device::cuda) cuda::synchronize(exec);
#else
  if (exec.device == Device::cuda) throw_cuda_unavailable("synchronize");
#endif
}

#ifndef CARAVAN_CUDA
void* cuda_allocate(size_t) { throw_cuda_unavailable("cuda_allocate"); }
void cuda_free(void*) noexcept {}
#endif

}  // namespace caravan
