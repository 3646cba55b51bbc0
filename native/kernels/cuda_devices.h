// What a person must know about the GPUs of this machine and what this build can do with them: for `doctor`, the planner
// and the window. Needs neither CUDA nor a driver: what is missing is said.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace caravan {

struct CudaDevice {
  int index = 0;  // as make_cuda_context counts
  std::string name;
  std::string uuid;            // "GPU-..."
  int compute_capability = 0;  // 90 for 9.0
  bool has_code = false;       // this build holds code for it
  int multiprocessors = 0;     // 0 where the build holds no CUDA: NVML does not tell
  uint64_t total_bytes = 0;
  std::optional<uint64_t> free_bytes;  // by NVML: asking CUDA would take memory of its own
};

/// A library that is looked for at run time.
struct LibraryStatus {
  bool found = false;
  std::string path;
  std::string version;
  std::string missing;  // which, and where it was looked for; empty where found
};

struct CudaStatus {
  bool built = false;                      // this build holds CUDA kernels
  std::vector<std::string> architectures;  // they were compiled for: "80-real", "90a", ...
  int runtime_version = 0;                 // 13000 for CUDA 13.0; 0 where not built
  int driver_cuda_version = 0;             // newest CUDA that the driver knows; 0: no driver
  std::string driver_version;              // "580.159.04"; empty without NVML
  std::string unavailable;                 // why no device can be used and what to do; empty where one can
  std::vector<CudaDevice> devices;
  LibraryStatus cublaslt;  // without it products run on kernels of ours, slower
  LibraryStatus nvml;      // without it nothing is known of memory, load, power and temperature
};

/// Creates no CUDA context and takes no device memory.
CudaStatus cuda_status();

/// A moment of one GPU; what the driver does not tell is empty.
struct GpuSample {
  uint64_t used_bytes = 0;  // by everybody, the driver included
  uint64_t total_bytes = 0;
  std::optional<uint64_t> process_bytes;  // by this process
  std::optional<double> utilisation;      // 0 to 1: share of the time in which a kernel ran
  std::optional<double> power_watts;
  std::optional<double> temperature_celsius;
  std::optional<double> clock_mhz;
};

/// @param uuid as in CudaDevice. Empty without NVML or such a device. About a millisecond.
std::optional<GpuSample> sample_gpu(const std::string& uuid);

}  // namespace caravan
