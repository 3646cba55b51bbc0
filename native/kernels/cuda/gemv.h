// Forward products of a few rows (decoding): each weight is read once from memory, NF4 as it is packed, and multiplied
// as it arrives.
#pragma once

#include "kernels/cuda/gemm.h"
#include "kernels/matmul.h"

namespace caravan::cuda {

constexpr int64_t gemv_rows = 8;
constexpr int64_t gemv_grouped_rows = 32;  // over all groups; beyond 8 rows a group's weights are read again

/// y (n, w.rows) = scale * x (n, w.cols) W^T (+ bias) (+ y), n <= gemv_rows. With `groups`, w is the first group's and
/// the rows are sorted by group as in Gemm. The sum's order depends on w.cols alone, so a row's bits do not depend on
/// the others. Rounding of W as in linear_forward.
void gemv(const Exec& exec, Ptr y, ConstPtr x, const Weight& w, const float* bias, int64_t n, float scale,
          bool accumulate, const int32_t* offsets = nullptr, int64_t groups = 0);

/// The same for bf16 x and NF4, on the tensor cores; false where rows do not begin with a block or are not aligned.
bool gemv_nf4(const Exec& exec, Ptr y, ConstPtr x, const Nf4View& w, const float* bias, int64_t n, float scale,
              bool accumulate);

}  // namespace caravan::cuda
