// Learning rates.
#pragma once

#include <cstdint>
#include <string>

namespace caravan {

/// W = max(1, round(ratio * total_steps)).
int64_t warmup_steps(double ratio, int64_t total_steps);

/// The rate of step t (from 1): lr * t / W while t < W; then `constant` keeps lr, `linear` and `cosine` fall from lr at
/// t = W towards 0, which they would reach at total_steps + 1. @throws EngineError bad_option for another name.
float learning_rate(const std::string& schedule, float lr, int64_t step, int64_t warmup, int64_t total_steps);

}  // namespace caravan
