// Log-probabilities in fp64 from logits in fp32.
#pragma once

#include <cstdint>

namespace caravan {

/// e^x within 2e-15 of its value, for x <= 0; written so that a compiler turns loops over it into vector code.
/// Below -708 it is 0.
double exp_of_negative(double x);

/// log(sum of exp(logits)) over `count` (at least 1); NaN where a logit is NaN or the largest is infinite.
double log_sum_exp(const float* logits, int64_t count);

/// The first of the largest.
int64_t arg_max(const float* logits, int64_t count);

}  // namespace caravan
