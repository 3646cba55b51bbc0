#include "addon/machine.h"

#include "addon/js_error.h"
#include "addon/values.h"
#include "engine/platform/build_info.h"
#include "engine/platform/memory.h"
#include "engine/platform/processor.h"

namespace caravan::addon {

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
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const SystemMemory memory = system_memory();
    const Napi::Object cpu = Napi::Object::New(env);
    cpu.Set("kind", "cpu");
    cpu.Set("name", processor_name());
    cpu.Set("units", usable_cores());
    cpu.Set("totalMemoryBytes", number(env, memory.total_bytes));
    cpu.Set("freeMemoryBytes", number(env, memory.free_bytes));
    const Napi::Array devices = Napi::Array::New(env, 1);
    devices.Set(uint32_t{0}, cpu);
    return devices;
  });
}

}  // namespace caravan::addon
