// NVIDIA's management library, loaded at run time. Only what we use of its interface is declared.
#pragma once

#include <string>

namespace caravan {

namespace nvml {

using Device = struct DeviceOpaque*;

struct Memory {
  unsigned long long total, free, used;
};
struct Utilisation {
  unsigned gpu, memory;  // percent
};
struct Process {
  unsigned pid;
  unsigned long long used_bytes;
  unsigned gpu_instance, compute_instance;
};

/// nvml's functions by their names less the prefix; each returns an nvmlReturn_t, 0 for success.
struct Functions {
  int (*Init_v2)();
  int (*SystemGetDriverVersion)(char*, unsigned length);
  int (*SystemGetNVMLVersion)(char*, unsigned length);
  int (*SystemGetCudaDriverVersion_v2)(int*);
  int (*DeviceGetCount_v2)(unsigned*);
  int (*DeviceGetHandleByIndex_v2)(unsigned, Device*);
  int (*DeviceGetHandleByUUID)(const char*, Device*);
  int (*DeviceGetName)(Device, char*, unsigned length);
  int (*DeviceGetUUID)(Device, char*, unsigned length);
  int (*DeviceGetCudaComputeCapability)(Device, int* major, int* minor);
  int (*DeviceGetMemoryInfo)(Device, Memory*);
  int (*DeviceGetUtilizationRates)(Device, Utilisation*);
  int (*DeviceGetPowerUsage)(Device, unsigned* milliwatts);
  int (*DeviceGetTemperature)(Device, int sensor, unsigned* celsius);
  int (*DeviceGetClockInfo)(Device, int clock, unsigned* mhz);
  int (*DeviceGetComputeRunningProcesses_v3)(Device, unsigned* count, Process*);
};

}  // namespace nvml

struct Nvml {
  nvml::Functions functions = {};
  std::string path;
  std::string version;
  std::string missing;  // empty: loaded and initialised

  bool found() const { return missing.empty(); }
};

/// Loaded and initialised at the first call, for the life of the process.
const Nvml& nvml_library();

}  // namespace caravan
