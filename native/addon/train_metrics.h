// What a run tells, as the objects of core/engine/AddonTypes.ts.
#pragma once

#include <napi.h>

#include "engine/train/metrics.h"

namespace caravan::addon {

Napi::Value opened_to_js(Napi::Env env, const SessionOpened& opened);
Napi::Value step_to_js(Napi::Env env, const StepMetrics& metrics);
Napi::Value evaluation_to_js(Napi::Env env, const EvaluationMetrics& metrics);
Napi::Value written_to_js(Napi::Env env, const CheckpointWritten& checkpoint);
Napi::Value result_to_js(Napi::Env env, const TrainResult& result);

}  // namespace caravan::addon
