// What is told of the machine's GPUs holds together, whatever is there: on a machine without any too.
#include "doctest/doctest.h"
#include "kernels/cuda_devices.h"

using namespace caravan;

TEST_CASE("what can be used and what is missing are said, each exactly where it is so") {
  const CudaStatus status = cuda_status();
  bool usable = false;
  for (const CudaDevice& device : status.devices) {
    CHECK(device.uuid.starts_with("GPU-"));
    CHECK(device.name.size() > 0);
    CHECK(device.total_bytes > 0);
    CHECK(device.compute_capability >= 30);
    usable = usable || device.has_code;
  }
  INFO(status.unavailable);
  CHECK(status.unavailable.empty() == usable);
  for (const LibraryStatus& library : {status.cublaslt, status.nvml}) {
    INFO(library.missing);
    CHECK(library.missing.empty() == library.found);
    CHECK(library.path.empty() != library.found);
    CHECK(library.version.empty() != library.found);
  }
  if (status.built) {
    CHECK(status.architectures.size() > 0);
    CHECK(status.runtime_version >= 12080);
  } else {
    CHECK(status.unavailable.find("holds no CUDA kernels") != std::string::npos);
  }
}

TEST_CASE("a GPU is sampled by its UUID") {
  CHECK(!sample_gpu("GPU-00000000-0000-0000-0000-000000000000"));
  for (const CudaDevice& device : cuda_status().devices) {
    if (!device.free_bytes) continue;
    const auto sample = sample_gpu(device.uuid);
    REQUIRE(sample);
    CHECK(sample->used_bytes <= sample->total_bytes);
    if (sample->utilisation) CHECK(*sample->utilisation <= 1.0);
    if (sample->power_watts) CHECK(*sample->power_watts > 1.0);
    if (sample->temperature_celsius) CHECK(*sample->temperature_celsius > 1.0);
  }
}
