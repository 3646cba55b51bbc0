#include "kernels/cuda/tensor_map.h"

#include <cudaTypedefs.h>

#include <array>
#include <string>

#include "kernels/cuda/check.h"

namespace caravan::cuda {

namespace {

constexpr size_t most_dimensions = 3;

/// The driver's function, found without linking to the driver.
PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
        "cuTensorMapEncodeTiled");
  if (found != cudaDriverEntryPointSuccess) {
    throw EngineError("device_failed", "the NVIDIA driver lacks cuTensorMapEncodeTiled; install a newer driver");
  }
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

}  // namespace

CUtensorMap make_tensor_map(const void* data, std::initializer_list<int64_t> sizes, std::initializer_list<int> box) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = tensor_map_encoder();
  std::array<cuuint64_t, most_dimensions> extents{};
  std::array<cuuint64_t, most_dimensions> strides{};  // bytes; of every dimension but the first
  std::array<cuuint32_t, most_dimensions> boxes{};
  const std::array<cuuint32_t, most_dimensions> steps = {1, 1, 1};
  const size_t dimensions = sizes.size();
  cuuint64_t bytes = 2;
  for (size_t i = 0; i < dimensions; ++i) {
    extents[i] = static_cast<cuuint64_t>(sizes.begin()[i]);
    boxes[i] = static_cast<cuuint32_t>(box.begin()[i]);
    if (i > 0) strides[i - 1] = bytes;
    bytes *= extents[i];
  }
  CUtensorMap map;
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(dimensions), const_cast<void*>(data),
             extents.data(), strides.data(), boxes.data(), steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw EngineError("device_failed", "cuTensorMapEncodeTiled: the driver says error " + std::to_string(status));
  }
  return map;
}

}  // namespace caravan::cuda
