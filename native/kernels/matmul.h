// Matrix products. Every sum over the contracted dimension is in fp32 and its order depends on the shapes alone, so a
// result does not depend on the thread count, and a row's result does not depend on how many other rows there are
// (packing and micro-batch leave a token's bits alone) as far as the header of each says.
//
// The CPU has two orders. A call with more than 8 rows, and every backward product, sums k = 0, 1, 2 ... in chains of
// fused multiply-adds over blocks that depend on the contracted size alone. A forward call with at most 8 rows
// (decoding; for the grouped form: 8 rows over all groups) reads each weight once and sums in vector lanes. Within each,
// a row's bits are the same for any N; between the two they differ by the rounding of fp32 sums.
//
// On processors with AVX512_BF16 the first kind takes two k at a time where both sides are bf16 (or rounded to it):
// sum += a[k + 1] b[k + 1] and a[k] b[k] for k = 0, 2, 4, ... by VDPBF16PS, which rounds as the processor does and
// takes subnormal operands and sums for zero. The bits differ from those of other instruction sets by the rounding of
// fp32 sums; what they may depend on is the same.
//
// On CUDA a forward call with at most 8 rows (grouped: 32 over all groups) reads each weight once, and a row's bits are
// the same for any number of them. Beyond, cuBLASLt chooses an algorithm by the shape: the same call gives the same bits,
// but a row's may depend on N. Grouped forms, and all where cuBLASLt is missing, sum by k alone.
#pragma once

#include "kernels/exec.h"
#include "kernels/nf4.h"

namespace caravan {

/// A weight W (rows = out features, cols = in features): dense in f32 or bf16, or NF4. A view.
struct Weight {
  ConstPtr dense;  // (rows, cols), or null when quantised
  const Nf4View* nf4 = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;

  static Weight of(ConstPtr data, int64_t rows, int64_t cols) { return {data, nullptr, rows, cols}; }
  static Weight of(const Nf4View& view) { return {{}, &view, view.rows, view.cols}; }
};

/// y (N, O) = scale * x (N, C) W^T, W (O, C); adds to y when `accumulate`. `bias` (O, f32) may be null.
/// NF4 is dequantised while packing, rounded to x's dtype first (bf16 activations multiply bf16 weights).
/// When x is bf16, dense f32 weights are rounded to bf16 likewise. Row results do not depend on N (but see above).
void linear_forward(const Exec& exec, Ptr y, ConstPtr x, const Weight& w, const float* bias, int64_t n, float scale,
                    bool accumulate);

/// dx (N, C) = scale * dy (N, O) W; adds to dx when `accumulate`. Rounding of W as in linear_forward, by dy's dtype.
void linear_backward_input(const Exec& exec, Ptr dx, ConstPtr dy, const Weight& w, int64_t n, float scale,
                           bool accumulate);

/// y (N, O) = x W^T + bias + u (scale * B)^T, B (O, R), in one sum that is rounded once; scale is a power of two. Rows of x are `row` elements apart, and in
/// each, u_at elements behind its beginning, lie the R elements of u.
void linear_lora_forward(const Exec& exec, Ptr y, ConstPtr x, int64_t row, const Weight& w, const float* bias,
                         ConstPtr b, float scale, int64_t u_at, int64_t r, int64_t n);

/// dw (O, C) += scale * dy^T (O, N) x (N, C; rows `x_row` elements apart, 0: C). dw is f32 (or bf16: rounded once at the end); sums over N in fp32.
void linear_backward_weight(const Exec& exec, Ptr dw, ConstPtr dy, ConstPtr x, int64_t n, int64_t out_features,
                            int64_t in_features, float scale, int64_t x_row = 0);

/// The router's products: f32 whatever the activations are, nothing rounded but dx. Rows
/// of x are x_row elements apart. logits (N, E) = x (N, C) W^T, W (E, C).
void router_forward(const Exec& exec, float* logits, ConstPtr x, int64_t x_row, ConstPtr w, int64_t n,
                    int64_t num_experts, int64_t c);
/// dx (N, C) += dlogits (N, E) W.
void router_backward_input(const Exec& exec, Ptr dx, const float* dlogits, ConstPtr w, int64_t n, int64_t num_experts,
                           int64_t c);
/// dw (E, C) f32 += dlogits^T x.
void router_backward_weight(const Exec& exec, float* dw, const float* dlogits, ConstPtr x, int64_t x_row, int64_t n,
                            int64_t num_experts, int64_t c);

/// dbias (O, f32) += sum over rows of dy (N, O).
void bias_backward(const Exec& exec, float* dbias, ConstPtr dy, int64_t n, int64_t out_features);

/// Grouped forms over rows sorted by group: group g owns rows [offsets[g], offsets[g + 1]) (G + 1 entries, host memory
/// on the CPU, device memory on CUDA). Weights are (G, O, C), dense. Empty groups are legal.
void grouped_linear_forward(const Exec& exec, Ptr y, ConstPtr x, ConstPtr w, const int32_t* offsets, int64_t groups,
                            int64_t n, int64_t out_features, int64_t in_features, float scale, bool accumulate);
void grouped_linear_backward_input(const Exec& exec, Ptr dx, ConstPtr dy, ConstPtr w, const int32_t* offsets,
                                   int64_t groups, int64_t n, int64_t out_features, int64_t in_features, float scale,
                                   bool accumulate);
void grouped_linear_backward_weight(const Exec& exec, Ptr dw, ConstPtr dy, ConstPtr x, const int32_t* offsets,
                                    int64_t groups, int64_t n, int64_t out_features, int64_t in_features, float scale);

}  // namespace caravan
