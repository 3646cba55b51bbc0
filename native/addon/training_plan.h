// planTraining, probeTraining and listCheckpoints of core/engine/AddonTypes.ts.
#pragma once

#include <napi.h>

namespace caravan::addon {

/// Once, when the addon is loaded: what plans count for the program itself.
void measure_program();
Napi::Value plan_run(const Napi::CallbackInfo& info);
Napi::Value probe_run(const Napi::CallbackInfo& info);
Napi::Value list_run_checkpoints(const Napi::CallbackInfo& info);

}  // namespace caravan::addon
