#include "kernels/cuda_devices.h"

#ifdef _WIN32
#include <process.h>
#else
#include <unistd.h>
#endif

#include "kernels/nvml.h"

#ifdef CARAVAN_CUDA
#include <cuda_runtime_api.h>

#include <cstdio>
#include <sstream>

#include "kernels/cuda/cublaslt.h"
#endif

namespace caravan {
namespace {

#ifdef _WIN32
unsigned own_process() { return static_cast<unsigned>(_getpid()); }
#else
unsigned own_process() { return static_cast<unsigned>(getpid()); }
#endif

#ifdef CARAVAN_CUDA

std::string cuda_version(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// "80", "90a", "100-virtual": as CMake names architectures.
std::vector<std::string> built_architectures() {
  std::vector<std::string> result;
  std::istringstream list(CARAVAN_CUDA_ARCHITECTURES);
  for (std::string name; std::getline(list, name, ',');) result.push_back(name);
  return result;
}

/// Machine code runs on its own major version from its minor on, PTX on everything newer; what is compiled for one
/// architecture's own features ("90a") runs there alone.
bool has_code_for(const std::vector<std::string>& architectures, int compute_capability) {
  for (const std::string& name : architectures) {
    size_t digits = 0;
    const int version = std::stoi(name, &digits);
    const bool specific = digits < name.size() && name[digits] == 'a';
    const bool machine_code = name.find("-virtual") == std::string::npos;
    const bool ptx = name.find("-real") == std::string::npos;
    if (version == compute_capability) return true;
    if (specific || version > compute_capability) continue;
    if (ptx || (machine_code && version / 10 == compute_capability / 10)) return true;
  }
  return false;
}

std::string uuid_text(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    char hex[4];
    std::snprintf(hex, sizeof(hex), "%02x", static_cast<unsigned char>(uuid.bytes[i]));
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += hex;
  }
  return text;
}

void ask_cuda(CudaStatus& status) {
  status.built = true;
  status.architectures = built_architectures();
  cudaRuntimeGetVersion(&status.runtime_version);
  cudaDriverGetVersion(&status.driver_cuda_version);
  const cuda::CublasLtLibrary& cublaslt = cuda::cublaslt_library();
  status.cublaslt.found = cublaslt.found();
  status.cublaslt.path = cublaslt.path;
  status.cublaslt.missing = cublaslt.missing;
  if (cublaslt.found()) {
    status.cublaslt.version = std::to_string(cublaslt.version / 10000) + "." +
                              std::to_string(cublaslt.version / 100 % 100) + "." +
                              std::to_string(cublaslt.version % 100);
  }
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    if (status.driver_cuda_version == 0) {
      status.unavailable = "no NVIDIA driver is installed";
    } else if (error == cudaErrorInsufficientDriver) {
      status.unavailable = "the NVIDIA driver knows CUDA up to " + cuda_version(status.driver_cuda_version) +
                           ", this build needs " + cuda_version(status.runtime_version) + ": install a newer driver";
    } else {
      status.unavailable = std::string("CUDA finds no device: ") + cudaGetErrorString(error);
    }
    return;
  }
  bool usable = false;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    CudaDevice device;
    device.index = i;
    device.name = properties.name;
    device.uuid = uuid_text(properties.uuid);
    device.compute_capability = 10 * properties.major + properties.minor;
    device.has_code = has_code_for(status.architectures, device.compute_capability);
    device.multiprocessors = properties.multiProcessorCount;
    device.total_bytes = properties.totalGlobalMem;
    usable = usable || device.has_code;
    status.devices.push_back(std::move(device));
  }
  if (!usable) {
    status.unavailable = "this build holds code for " + std::string(CARAVAN_CUDA_ARCHITECTURES) +
                         ", which none of the GPUs here runs: npm run build:cuda builds for them";
  }
}

#endif

void ask_nvml(CudaStatus& status) {
  const Nvml& library = nvml_library();
  status.nvml = {library.found(), library.path, library.version, library.missing};
  if (!library.found()) return;
  const nvml::Functions& f = library.functions;
  char driver[80] = {};
  if (f.SystemGetDriverVersion(driver, sizeof(driver)) == 0) status.driver_version = driver;
  if (status.driver_cuda_version == 0) f.SystemGetCudaDriverVersion_v2(&status.driver_cuda_version);
  if (status.built) {
    for (CudaDevice& device : status.devices) {
      if (const auto sample = sample_gpu(device.uuid)) device.free_bytes = sample->total_bytes - sample->used_bytes;
    }
    return;
  }
  // Without CUDA in the build NVML alone knows of the GPUs.
  unsigned count = 0;
  if (f.DeviceGetCount_v2(&count) != 0) return;
  for (unsigned i = 0; i < count; ++i) {
    nvml::Device handle = nullptr;
    nvml::Memory memory = {};
    char name[96] = {}, uuid[96] = {};
    int major = 0, minor = 0;
    if (f.DeviceGetHandleByIndex_v2(i, &handle) != 0 || f.DeviceGetName(handle, name, sizeof(name)) != 0 ||
        f.DeviceGetUUID(handle, uuid, sizeof(uuid)) != 0 || f.DeviceGetMemoryInfo(handle, &memory) != 0) {
      continue;
    }
    f.DeviceGetCudaComputeCapability(handle, &major, &minor);
    CudaDevice device;
    device.index = static_cast<int>(i);
    device.name = name;
    device.uuid = uuid;
    device.compute_capability = 10 * major + minor;
    device.total_bytes = memory.total;
    device.free_bytes = memory.total - memory.used;
    status.devices.push_back(std::move(device));
  }
}

}  // namespace

CudaStatus cuda_status() {
  CudaStatus status;
#ifdef CARAVAN_CUDA
  ask_cuda(status);
#else
  status.cublaslt.missing = "this build holds no CUDA kernels and did not look for it";
#endif
  ask_nvml(status);
  if (!status.built) {
    status.unavailable = "this build holds no CUDA kernels";
    status.unavailable += status.devices.empty() ? ", and no NVIDIA driver and GPU are here"
                                                 : ": install the CUDA toolkit (nvcc), then npm run build:cuda";
  }
  return status;
}

std::optional<GpuSample> sample_gpu(const std::string& uuid) {
  const Nvml& library = nvml_library();
  if (!library.found()) return std::nullopt;
  const nvml::Functions& f = library.functions;
  nvml::Device device = nullptr;
  nvml::Memory memory = {};
  if (f.DeviceGetHandleByUUID(uuid.c_str(), &device) != 0 || f.DeviceGetMemoryInfo(device, &memory) != 0) {
    return std::nullopt;
  }
  GpuSample sample;
  sample.used_bytes = memory.used;
  sample.total_bytes = memory.total;
  constexpr int gpu_sensor = 0, sm_clock = 1;
  nvml::Utilisation utilisation = {};
  unsigned value = 0;
  if (f.DeviceGetUtilizationRates(device, &utilisation) == 0) sample.utilisation = utilisation.gpu / 100.0;
  if (f.DeviceGetPowerUsage(device, &value) == 0) sample.power_watts = value / 1000.0;
  if (f.DeviceGetTemperature(device, gpu_sensor, &value) == 0) sample.temperature_celsius = value;
  if (f.DeviceGetClockInfo(device, sm_clock, &value) == 0) sample.clock_mhz = value;
  nvml::Process processes[64];
  unsigned count = 64;
  if (f.DeviceGetComputeRunningProcesses_v3(device, &count, processes) == 0) {
    for (unsigned i = 0; i < count; ++i) {
      // In a container the driver counts in another namespace, and some drivers tell no bytes (all ones).
      if (processes[i].pid == own_process() && processes[i].used_bytes != ~0ull) {
        sample.process_bytes = processes[i].used_bytes;
      }
    }
  }
  return sample;
}

}  // namespace caravan
