#include "engine/infer/log_probability.h"

#include <bit>
#include <cmath>
#include <limits>

namespace caravan {

namespace {

/// 2^n * e^r with |r| <= ln(2) / 2: Taylor's series to degree 13, whose remainder is below 4e-18.
inline double exponential(double x) {
  constexpr double log2_e = 1.4426950408889634074;
  constexpr double ln2_high = 6.93147180369123816490e-01;  // the low bits are zero: n * ln2_high is exact
  constexpr double ln2_low = 1.90821492927058770002e-10;
  constexpr double to_integer = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer in the low bits
  const double clamped = x < -708.0 ? -708.0 : x;
  const double shifted = clamped * log2_e + to_integer;
  const double n = shifted - to_integer;
  const double r = (clamped - n * ln2_high) - n * ln2_low;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const double power = std::bit_cast<double>((std::bit_cast<uint64_t>(shifted) + 1023u) << 52);
  return x < -708.0 ? 0.0 : p * power;
}

}  // namespace

double exp_of_negative(double x) { return exponential(x); }

int64_t arg_max(const float* logits, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return best;
}

double log_sum_exp(const float* logits, int64_t count) {
  constexpr int64_t lanes = 8;  // sums side by side; their order is fixed
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < count; ++i) largest = logits[i] > largest ? logits[i] : largest;
  const double shift = static_cast<double>(largest);
  double sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      sums[lane] += exponential(static_cast<double>(logits[i + lane]) - shift);
    }
  }
  for (; i < count; ++i) sums[i % lanes] += exponential(static_cast<double>(logits[i]) - shift);
  const double sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  return shift + std::log(sum);
}

}  // namespace caravan
