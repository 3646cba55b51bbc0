// What core/engine/AddonTypes.ts says about exports.
#pragma once

#include <functional>
#include <string>

#include <napi.h>

#include "addon/task.h"
#include "engine/export/export_options.h"

namespace caravan::addon {

Napi::Value plan_model_export(const Napi::CallbackInfo& info);
Napi::Value export_model(const Napi::CallbackInfo& info);

/// @throws EngineError bad_option naming the field
ExportOptions to_export_options(Napi::Value value, const char* call);
Napi::Value from_json(Napi::Env env, const std::string& json);

/// Runs `work` on a thread of its own. `on_progress` may return false, which cancels it.
using ExportWork = std::function<Task::Settle(const Exec&, const ExportWatch&)>;
Napi::Promise start_export(Napi::Env env, Napi::Value on_progress, int threads, ExportWork work);

}  // namespace caravan::addon
