// The loops of classifier_kernels.h for one instruction set: included by classifier_portable.cpp, classifier_avx2.cpp
// and classifier_avx512.cpp.
#include "kernels/cpu/classifier_kernels.h"
#include "kernels/cpu/simd.h"

namespace caravan::cpu::CARAVAN_ISA {
namespace {

constexpr int chains = 4;
constexpr int64_t stride = chains * Vec::width;

float largest(const float* row, int64_t count) {
  float result = row[0];
  int64_t i = 0;
  if (count >= stride) {
    Vec top[chains];
    for (int c = 0; c < chains; ++c) top[c] = load(row + c * Vec::width);
    for (i = stride; i + stride <= count; i += stride) {
#pragma GCC unroll 4
      for (int c = 0; c < chains; ++c) top[c] = max(load(row + i + c * Vec::width), top[c]);
    }
    result = max_lane(max(max(top[0], top[1]), max(top[2], top[3])));
  }
  for (; i < count; ++i) result = row[i] > result ? row[i] : result;
  return result;
}

/// In fp64: where the softmax is nearly one-hot, all but one lane are small beside the sum and still count.
CARAVAN_INLINE double sum_lanes_exactly(Vec a) {
  float lane[Vec::width];
  store(lane, a);
  double sum = 0.0;
  for (int i = 0; i < Vec::width; ++i) sum += static_cast<double>(lane[i]);
  return sum;
}

template <bool keep>
CARAVAN_INLINE double exponentials_typed(float* row, int64_t count, float largest) {
  // fp32 lanes of at most 256 terms each, then fp64: a vocabulary has some hundred thousand entries.
  constexpr int64_t block = 256 * stride;
  double total = 0.0;
  int64_t i = 0;
  while (i + stride <= count) {
    const int64_t end = i + block < count ? i + block : count;
    Vec sum[chains] = {zero(), zero(), zero(), zero()};
    for (; i + stride <= end; i += stride) {
#pragma GCC unroll 4
      for (int c = 0; c < chains; ++c) {
        const Vec e = exp(load(row + i + c * Vec::width) - all(largest));
        if (keep) store(row + i + c * Vec::width, e);
        sum[c] = sum[c] + e;
      }
    }
    for (int c = 0; c < chains; ++c) total += sum_lanes_exactly(sum[c]);
  }
  for (; i < count; i += Vec::width) {
    const int64_t left = count - i < Vec::width ? count - i : Vec::width;
    float part[Vec::width];
    for (int64_t j = 0; j < Vec::width; ++j) part[j] = j < left ? row[i + j] - largest : -__builtin_inff();
    const Vec e = exp(load(part));
    store(part, e);
    for (int64_t j = 0; keep && j < left; ++j) row[i + j] = part[j];
    total += sum_lanes_exactly(e);
  }
  return total;
}

double exponentials(float* row, int64_t count, float largest, bool keep) {
  return keep ? exponentials_typed<true>(row, count, largest) : exponentials_typed<false>(row, count, largest);
}

void scale(float* row, int64_t count, float factor) {
  int64_t i = 0;
  for (; i + Vec::width <= count; i += Vec::width) store(row + i, all(factor) * load(row + i));
  for (; i < count; ++i) row[i] *= factor;
}

}  // namespace

extern const ClassifierKernels classifier;
const ClassifierKernels classifier = {largest, exponentials, scale};

}  // namespace caravan::cpu::CARAVAN_ISA
