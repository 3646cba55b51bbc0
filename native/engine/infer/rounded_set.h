// What a checkpoint adds, as products of bf16 activations take it.
#pragma once

#include <memory>

#include "engine/model/trainable_set.h"

namespace caravan {

/// `set` with its f32 matrices in bf16, to which every product with bf16 activations would round them; routers, which work
/// in f32, and vectors stay. Half the memory, and nothing is rounded anew in each pass.
std::shared_ptr<TrainableSet> round_for_bf16(const Exec& exec, const ModelConfig& config,
                                             std::shared_ptr<TrainableSet> set);

}  // namespace caravan
