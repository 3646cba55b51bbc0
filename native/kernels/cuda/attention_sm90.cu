#include "kernels/cuda/attention_sm90.cuh"

#include "kernels/cuda/tensor_map.h"

namespace caravan::cuda {

namespace {

constexpr int mark_ints = 2048;

/// Takes shared memory only where it is compiled for sm_90a, as the kernels for Hopper are: so the host can tell.
__global__ void marked_kernel(int* values) {
#ifdef CARAVAN_SM90A
  __shared__ int mark[mark_ints];
  mark[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = mark[mark_ints - 1 - threadIdx.x];
#endif
}

}  // namespace

CUtensorMap attention_map(const bf16* array, int64_t rows, int64_t heads, int64_t dim, int box_rows) {
  return make_tensor_map(array, {dim, heads, rows}, {64, 1, box_rows});
}

bool attention_for_sm90(const Exec& exec, int64_t head_dim) {
  if (exec.cuda->compute_capability() != 90 || (head_dim != 64 && head_dim != 128)) return false;
  // A build without 90a in its list runs here by other code, in which those kernels are empty.
  static const bool built = [] {
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, marked_kernel), "cudaFuncGetAttributes");
    return attributes.sharedSizeBytes >= mark_ints * sizeof(int);
  }();
  return built;
}

}  // namespace caravan::cuda
