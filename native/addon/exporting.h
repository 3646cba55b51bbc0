// What core/engine/AddonTypes.ts says about exports.
#pragma once

#include <napi.h>

namespace caravan::addon {

Napi::Value plan_model_export(const Napi::CallbackInfo& info);
Napi::Value export_model(const Napi::CallbackInfo& info);

}  // namespace caravan::addon
