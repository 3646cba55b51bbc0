#pragma once

#include <string>

#include <napi.h>

#include "engine/train/train_options.h"

namespace caravan::addon {

/// TrainOptions of core/engine/AddonTypes.ts. @param call names the call in messages
/// @throws EngineError bad_option naming the field that is missing, unknown, of the wrong type or out of range
TrainOptions to_train_options(Napi::Value value, const std::string& call);

DType to_dtype(const std::string& name, const std::string& what);
BaseDType to_base_dtype(const std::string& name, const std::string& what);
Device to_device(const std::string& name, const std::string& what);

}  // namespace caravan::addon
