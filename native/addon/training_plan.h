// planTraining, probeTraining and listCheckpoints of core/engine/AddonTypes.ts.
#pragma once

#include <napi.h>

namespace caravan::addon {

Napi::Value plan_run(const Napi::CallbackInfo& info);
Napi::Value probe_run(const Napi::CallbackInfo& info);
Napi::Value list_run_checkpoints(const Napi::CallbackInfo& info);

}  // namespace caravan::addon
