#include "engine/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/platform/error.h"

namespace caravan {

int64_t warmup_steps(double ratio, int64_t total_steps) {
  return std::max<int64_t>(1, std::llround(ratio * static_cast<double>(total_steps)));
}

float learning_rate(const std::string& schedule, float lr, int64_t step, int64_t warmup, int64_t total_steps) {
  const bool linear = schedule == "linear";
  if (!linear && schedule != "cosine" && schedule != "constant")
    throw EngineError("bad_option", "schedule '" + schedule + "' is not one of constant, linear, cosine");
  double factor = std::min(1.0, static_cast<double>(step) / static_cast<double>(warmup));
  if (schedule != "constant" && step > warmup) {
    const double progress =
        std::min(1.0, static_cast<double>(step - warmup) / static_cast<double>(total_steps + 1 - warmup));
    factor = linear ? 1.0 - progress : 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  }
  return static_cast<float>(static_cast<double>(lr) * factor);
}

}  // namespace caravan
