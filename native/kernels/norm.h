// RMSNorm (Zhang & Sennrich, arXiv 1910.07467): y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + eps), as Hugging Face
// computes it: statistics in fp32, x * rstd rounded to the activation dtype, then times the weight.
#pragma once

#include "kernels/exec.h"

namespace caravan {

/// y (N, C; rows `y_row` elements apart, 0: C), rstd (N, f32, may be null), x (N, C), weight (C, f32 or bf16). Also used per head for q/k norm with
/// N = tokens * heads, C = head size.
void rmsnorm_forward(const Exec& exec, Ptr y, float* rstd, ConstPtr x, ConstPtr weight, int64_t n, int64_t c, float eps,
                     int64_t y_row = 0);

/// dx (N, C) += or = (by `accumulate`); dweight (C, f32) += unless null.
void rmsnorm_backward(const Exec& exec, Ptr dx, float* dweight, ConstPtr dy, ConstPtr x, const float* rstd,
                      ConstPtr weight, int64_t n, int64_t c, bool accumulate);

}  // namespace caravan
