// buildInfo(), devices() and cudaStatus() of core/engine/AddonTypes.ts.
#pragma once

#include <napi.h>

namespace caravan::addon {

Napi::Value describe_build(const Napi::CallbackInfo& info);
Napi::Value list_devices(const Napi::CallbackInfo& info);
Napi::Value describe_cuda(const Napi::CallbackInfo& info);

}  // namespace caravan::addon
