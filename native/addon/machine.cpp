#include "addon/machine.h"

#include "addon/js_error.h"
#include "addon/promise.h"
#include "addon/values.h"
#include "engine/platform/build_info.h"
#include "engine/platform/gpu_status.h"
#include "engine/platform/memory.h"
#include "engine/platform/processor.h"

namespace caravan::addon {

namespace {

Napi::Value text_or_null(Napi::Env env, const std::string& value) {
  return value.empty() ? env.Null() : text(env, value);
}

/// @param version CUDA's: 13000 for 13.0; null for 0
Napi::Value cuda_version_or_null(Napi::Env env, int version) {
  if (version == 0) return env.Null();
  return text(env, std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10));
}

std::string compute_capability(const CudaDevice& device) {
  return std::to_string(device.compute_capability / 10) + "." + std::to_string(device.compute_capability % 10);
}

Napi::Value free_bytes(Napi::Env env, const CudaDevice& device) {
  return device.free_bytes ? number(env, static_cast<int64_t>(*device.free_bytes)) : env.Null();
}

Napi::Object gpu_to_js(Napi::Env env, const CudaDevice& device, const CudaStatus& status) {
  const Napi::Object gpu = Napi::Object::New(env);
  gpu.Set("device", device.index == 0 ? "cuda" : "cuda:" + std::to_string(device.index));
  gpu.Set("kind", "cuda");
  gpu.Set("name", device.name);
  gpu.Set("units", device.multiprocessors);
  gpu.Set("totalMemoryBytes", number(env, static_cast<int64_t>(device.total_bytes)));
  gpu.Set("freeMemoryBytes", free_bytes(env, device));
  gpu.Set("computeCapability", compute_capability(device));
  if (!status.driver_version.empty()) gpu.Set("driverVersion", status.driver_version);
  return gpu;
}

Napi::Value library_to_js(Napi::Env env, const LibraryStatus& library) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("path", text_or_null(env, library.path));
  result.Set("version", text_or_null(env, library.version));
  result.Set("missing", text_or_null(env, library.missing));
  return result;
}

Napi::Value status_to_js(Napi::Env env, const CudaStatus& status) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("built", status.built);
  result.Set("architectures",
             array_of(env, status.architectures, [](Napi::Env e, const std::string& name) { return text(e, name); }));
  result.Set("neededCuda", cuda_version_or_null(env, status.runtime_version));
  result.Set("driverCuda", cuda_version_or_null(env, status.driver_cuda_version));
  result.Set("driverVersion", text_or_null(env, status.driver_version));
  result.Set("unavailable", text_or_null(env, status.unavailable));
  result.Set("devices", array_of(env, status.devices, [](Napi::Env e, const CudaDevice& device) {
               const Napi::Object gpu = Napi::Object::New(e);
               gpu.Set("name", device.name);
               gpu.Set("computeCapability", compute_capability(device));
               gpu.Set("hasCode", device.has_code);
               gpu.Set("totalMemoryBytes", number(e, static_cast<int64_t>(device.total_bytes)));
               gpu.Set("freeMemoryBytes", free_bytes(e, device));
               return gpu;
             }));
  result.Set("cublaslt", library_to_js(env, status.cublaslt));
  result.Set("nvml", library_to_js(env, status.nvml));
  return result;
}

}  // namespace

Napi::Value describe_build(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const BuildInfo build = build_info();
    const Napi::Object result = Napi::Object::New(env);
    result.Set("version", build.version);
    result.Set("buildId", build.build_id);
    result.Set("compiler", build.compiler);
    result.Set("cuda", build.cuda);
    const Napi::Object simd = Napi::Object::New(env);
    simd.Set("built",
             array_of(env, build.simd_built, [](Napi::Env e, const std::string& name) { return text(e, name); }));
    simd.Set("used", build.simd_used);
    result.Set("simd", simd);
    return result;
  });
}

Napi::Value list_devices(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<CudaStatus>::run(info.Env(), cuda_status, [](Napi::Env env, const CudaStatus& status) {
      const SystemMemory memory = system_memory();
      const Napi::Object cpu = Napi::Object::New(env);
      cpu.Set("device", "cpu");
      cpu.Set("kind", "cpu");
      cpu.Set("name", processor_name());
      cpu.Set("units", usable_cores());
      cpu.Set("totalMemoryBytes", number(env, memory.total_bytes));
      cpu.Set("freeMemoryBytes", number(env, memory.free_bytes));
      const Napi::Array devices = Napi::Array::New(env);
      devices.Set(uint32_t{0}, cpu);
      for (const CudaDevice& device : status.devices) {
        if (status.unavailable.empty() && device.has_code)
          devices.Set(devices.Length(), gpu_to_js(env, device, status));
      }
      return devices;
    });
  });
}

Napi::Value describe_cuda(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<CudaStatus>::run(info.Env(), cuda_status, status_to_js);
  });
}

}  // namespace caravan::addon
