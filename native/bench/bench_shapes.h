// The shapes that the benchmarks know, as config.json has them.
#pragma once

#include <string>
#include <vector>

#include "engine/model/model_config.h"

namespace caravan::bench {

/// demo, smollm2-135m, llama2-7b, llama2-13b, mistral-7b, yi-34b; `layers` > 0 replaces the shape's own number.
/// @throws EngineError bad_option, naming the shapes there are
ModelConfig bench_shape(const std::string& name, int64_t layers = 0);

}  // namespace caravan::bench
