// What crafting and quantising change before the first step, as the largest difference of a logit.
#pragma once

#include "engine/train/micro_batch.h"

namespace caravan {

/// Logits (rows, V) of up to 32 rows spread over the first tokens of `batch`.
std::vector<float> sample_logits(const Exec& exec, std::shared_ptr<const Model> model, DType activation,
                                 const MicroBatch& batch);

/// max |a - b|; infinite where the sizes differ or a value is NaN.
double largest_logit_difference(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace caravan
