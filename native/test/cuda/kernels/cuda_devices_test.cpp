// What is told of the GPU that the other tests in this folder run on.
#include "kernels/cuda_devices.h"

#include <algorithm>

#include "cuda/cuda_test.h"

using namespace caravan;
using namespace caravan::test;

TEST_CASE("the device in use is listed with its memory, and what this process took of it") {
  const CudaStatus status = cuda_status();
  INFO(status.unavailable << status.nvml.missing << status.cublaslt.missing);
  REQUIRE(status.unavailable.empty());
  const auto device = std::find_if(status.devices.begin(), status.devices.end(),
                                   [](const CudaDevice& candidate) { return candidate.index == 0; });
  REQUIRE(device != status.devices.end());
  CHECK(device->has_code);
  MESSAGE(device->name << ", " << device->compute_capability << ", " << device->total_bytes << " bytes, driver "
                       << status.driver_version << " (CUDA " << status.driver_cuda_version << "), cuBLASLt "
                       << status.cublaslt.version << " " << status.cublaslt.path << ", NVML " << status.nvml.version);
  if (!status.nvml.found) return;
  constexpr size_t taken = size_t{256} << 20;
  const auto before = sample_gpu(device->uuid);
  REQUIRE(before);
  void* const memory = cuda_allocate(taken);
  const auto after = sample_gpu(device->uuid);
  cuda_free(memory);
  REQUIRE(after);
  // Others may use the device meanwhile; what this process took is exact where the driver tells it.
  if (before->process_bytes && after->process_bytes) CHECK(*after->process_bytes >= *before->process_bytes + taken);
  MESSAGE("used " << before->used_bytes << " then " << after->used_bytes << ", this process "
                  << (after->process_bytes ? std::to_string(*after->process_bytes) : std::string("unknown"))
                  << ", utilisation " << after->utilisation.value_or(-1) << ", " << after->power_watts.value_or(-1)
                  << " W, " << after->temperature_celsius.value_or(-1) << " C, " << after->clock_mhz.value_or(-1)
                  << " MHz");
}
