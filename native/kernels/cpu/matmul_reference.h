// Matrix products as their definition says, one sum at a time in fp64: what the fast ones are held against.
#pragma once

#include "kernels/matmul.h"

namespace caravan::cpu::reference {

/// Element (row, col) of W as a product with activations of `activations` sees it.
float weight_value(const Weight& w, int64_t row, int64_t col, DType activations);

void linear_forward(Ptr y, ConstPtr x, const Weight& w, const float* bias, int64_t n, float scale, bool accumulate);
void linear_backward_input(Ptr dx, ConstPtr dy, const Weight& w, int64_t n, float scale, bool accumulate);
void linear_backward_weight(Ptr dw, ConstPtr dy, ConstPtr x, int64_t n, int64_t out_features, int64_t in_features,
                            float scale);

}  // namespace caravan::cpu::reference
