#include "kernels/cuda/attention_sm90.cuh"

#include <cudaTypedefs.h>

#include <string>

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

/// The driver's function, found without linking to the driver.
PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
        "cuTensorMapEncodeTiled");
  if (found != cudaDriverEntryPointSuccess) {
    throw EngineError("cuda_failed", "the NVIDIA driver has no cuTensorMapEncodeTiled; install a newer driver");
  }
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

}  // namespace

CUtensorMap attention_map(const bf16* array, int64_t rows, int64_t heads, int64_t dim, int box_rows) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = tensor_map_encoder();
  CUtensorMap map;
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(dim), static_cast<cuuint64_t>(heads),
                               static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(2 * dim), static_cast<cuuint64_t>(2 * heads * dim)};
  const cuuint32_t box[3] = {64, 1, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult result = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<bf16*>(array), sizes, strides,
                                 box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw EngineError("cuda_failed", "a tensor map of " + std::to_string(rows) + " x " + std::to_string(heads) + " x " +
                                         std::to_string(dim) + ": the driver says error " + std::to_string(result));
  }
  return map;
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
