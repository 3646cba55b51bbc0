#include "kernels/nvml.h"

#include "kernels/nvidia_library.h"

namespace caravan {
namespace {

template <typename F>
bool resolve(const SharedLibrary& library, const char* name, F& function) {
  function = reinterpret_cast<F>(library.symbol(name));
  return function != nullptr;
}

bool resolve_all(const SharedLibrary& library, nvml::Functions& f) {
  return resolve(library, "nvmlInit_v2", f.Init_v2) &&
         resolve(library, "nvmlSystemGetDriverVersion", f.SystemGetDriverVersion) &&
         resolve(library, "nvmlSystemGetNVMLVersion", f.SystemGetNVMLVersion) &&
         resolve(library, "nvmlSystemGetCudaDriverVersion_v2", f.SystemGetCudaDriverVersion_v2) &&
         resolve(library, "nvmlDeviceGetCount_v2", f.DeviceGetCount_v2) &&
         resolve(library, "nvmlDeviceGetHandleByIndex_v2", f.DeviceGetHandleByIndex_v2) &&
         resolve(library, "nvmlDeviceGetHandleByUUID", f.DeviceGetHandleByUUID) &&
         resolve(library, "nvmlDeviceGetName", f.DeviceGetName) &&
         resolve(library, "nvmlDeviceGetUUID", f.DeviceGetUUID) &&
         resolve(library, "nvmlDeviceGetCudaComputeCapability", f.DeviceGetCudaComputeCapability) &&
         resolve(library, "nvmlDeviceGetMemoryInfo", f.DeviceGetMemoryInfo) &&
         resolve(library, "nvmlDeviceGetUtilizationRates", f.DeviceGetUtilizationRates) &&
         resolve(library, "nvmlDeviceGetPowerUsage", f.DeviceGetPowerUsage) &&
         resolve(library, "nvmlDeviceGetTemperature", f.DeviceGetTemperature) &&
         resolve(library, "nvmlDeviceGetClockInfo", f.DeviceGetClockInfo) &&
         resolve(library, "nvmlDeviceGetComputeRunningProcesses_v3", f.DeviceGetComputeRunningProcesses_v3);
}

Nvml load() {
  Nvml result;
  SharedLibrary library = open_nvidia_library({"libnvidia-ml.so.1"}, {});
  if (!library.loaded()) {
    result.missing = library.why_not();
  } else if (!resolve_all(library, result.functions)) {
    result.missing = library.path() + " lacks functions that NVML of driver 510 and newer has";
  } else if (const int status = result.functions.Init_v2(); status != 0) {
    result.missing = library.path() + " does not reach the driver: NVML returned status " + std::to_string(status);
  } else {
    char version[80] = {};
    if (result.functions.SystemGetNVMLVersion(version, sizeof(version)) == 0) result.version = version;
    result.path = library.path();
    library.keep();
  }
  return result;
}

}  // namespace

const Nvml& nvml_library() {
  static const Nvml library = load();
  return library;
}

}  // namespace caravan
