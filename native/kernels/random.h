// Random initial values as pure functions of (seed, parameter, element): Philox counters, no state.
#pragma once

#include "kernels/exec.h"

namespace caravan {

/// values (count) = U(-bound, bound).
void fill_uniform(const Exec& exec, Ptr values, int64_t count, float bound, uint32_t seed, uint32_t parameter);
/// values (count) = N(0, deviation^2), by Box and Muller.
void fill_normal(const Exec& exec, Ptr values, int64_t count, float deviation, uint32_t seed, uint32_t parameter);
void fill_constant(const Exec& exec, Ptr values, int64_t count, float value);

}  // namespace caravan
