// TrainOptions as JSON in the camelCase of core/engine/AddonTypes.ts: what the command-line trainer reads, and what a
// checkpoint's manifest keeps so that a resumed run can be held to its first options.
#pragma once

#include <map>
#include <string>

#include "engine/train/train_options.h"

namespace caravan {

/// Missing fields keep their defaults. @throws EngineError bad_option naming the field that is unknown or of the wrong
/// type; bad_file where the text is not JSON (`file` is what messages call it).
TrainOptions parse_train_options(const std::string& json, const std::string& file);

/// The options that decide a run's numbers, as text by field: not paths, threads, or when to evaluate and save.
std::map<std::string, std::string> defining_options(const TrainOptions& options);

}  // namespace caravan
