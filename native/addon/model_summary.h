#pragma once

#include <napi.h>

#include "engine/model/model_summary.h"

namespace caravan::addon {

/// ModelSummary of core/engine/AddonTypes.ts.
Napi::Value summary_to_js(Napi::Env env, const ModelSummary& summary);

}  // namespace caravan::addon
