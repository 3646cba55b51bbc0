// The loops over a row of logits of classifier.h, by instruction set.
#pragma once

#include <cstdint>

namespace caravan::cpu {

struct ClassifierKernels {
  float (*largest)(const float* row, int64_t count);
  /// Sum of exp(row[i] - largest) in fp64 over lanes summed in fp32; with `keep`, the row becomes its terms. NaN or
  /// infinity in the row reaches the sum.
  double (*exponentials)(float* row, int64_t count, float largest, bool keep);
  void (*scale)(float* row, int64_t count, float factor);
};

}  // namespace caravan::cpu
