// Which operand each product of matmul.h packs how: all of them are the one product of gemm.h.
#include "kernels/matmul.h"

#include <vector>

#include "kernels/activation.h"
#include "kernels/cpu/gemm.h"

namespace caravan::cpu {
namespace {

Operand dense_operand(ConstPtr data, int64_t ld, bool k_contiguous) {
  Operand x;
  x.type = data.dtype == DType::f32 ? OperandType::f32 : OperandType::bf16;
  x.data = data.data;
  x.ld = ld;
  x.k_contiguous = k_contiguous;
  return x;
}

Operand weight_operand(const Weight& w, bool k_contiguous, DType activations) {
  Operand x = dense_operand(w.dense, w.cols, k_contiguous);
  if (w.nf4 != nullptr) {
    x.type = OperandType::nf4;
    x.nf4 = w.nf4;
  }
  x.round_to_bf16 = activations == DType::bf16 && x.type != OperandType::bf16;
  return x;
}

Gemm product(Ptr c, int64_t m, int64_t n, int64_t k, float scale, bool accumulate) {
  Gemm g;
  g.c = c.data;
  g.c_is_bf16 = c.dtype == DType::bf16;
  g.m = m;
  g.n = n;
  g.k = k;
  g.scale = scale;
  g.accumulate = accumulate;
  g.tables = &nf4_tables();
  return g;
}

Gemm forward_product(Ptr y, ConstPtr x, const Weight& w, int64_t n, float scale, bool accumulate) {
  Gemm g = product(y, n, w.rows, w.cols, scale, accumulate);
  g.a = dense_operand(x, w.cols, true);
  g.b = weight_operand(w, true, x.dtype);
  return g;
}

Gemm backward_input_product(Ptr dx, ConstPtr dy, const Weight& w, int64_t n, float scale, bool accumulate) {
  Gemm g = product(dx, n, w.cols, w.rows, scale, accumulate);
  g.a = dense_operand(dy, w.rows, true);
  g.b = weight_operand(w, false, dy.dtype);
  return g;
}

Gemm backward_weight_product(Ptr dw, ConstPtr dy, ConstPtr x, int64_t n, int64_t out_features, int64_t in_features,
                             float scale, int64_t x_row) {
  Gemm g = product(dw, out_features, in_features, n, scale, true);
  g.a = dense_operand(dy, out_features, false);
  g.b = dense_operand(x, x_row, false);
  return g;
}

/// One product per group that has rows.
template <typename F>
void run_groups(const Exec& exec, const int32_t* offsets, int64_t groups, F&& product_of) {
  std::vector<Gemm> products;
  products.reserve(static_cast<size_t>(groups));
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t rows = offsets[g + 1] - offsets[g];
    if (rows > 0) products.push_back(product_of(g, static_cast<int64_t>(offsets[g]), rows));
  }
  gemm_run(exec, products.data(), static_cast<int64_t>(products.size()));
}

}  // namespace

void linear_forward(const Exec& exec, Ptr y, ConstPtr x, const Weight& w, const float* bias, int64_t n, float scale,
                    bool accumulate) {
  Gemm g = forward_product(y, x, w, n, scale, accumulate);
  g.bias = bias;
  gemm_run(exec, &g, 1);
}

void linear_backward_input(const Exec& exec, Ptr dx, ConstPtr dy, const Weight& w, int64_t n, float scale,
                           bool accumulate) {
  const Gemm g = backward_input_product(dx, dy, w, n, scale, accumulate);
  gemm_run(exec, &g, 1);
}

void linear_backward_weight(const Exec& exec, Ptr dw, ConstPtr dy, ConstPtr x, int64_t n, int64_t out_features,
                            int64_t in_features, float scale, int64_t x_row) {
  const Gemm g = backward_weight_product(dw, dy, x, n, out_features, in_features, scale, x_row);
  gemm_run(exec, &g, 1);
}

void linear_lora_forward(const Exec& exec, Ptr y, ConstPtr x, int64_t row, const Weight& w, const float* bias,
                         ConstPtr b, float scale, int64_t u_at, int64_t r, int64_t n) {
  std::vector<float> sum(static_cast<size_t>(n * w.rows));
  Gemm wide = forward_product(sum.data(), x, w, n, 1.0f, false);
  wide.a.ld = row;
  wide.bias = bias;
  gemm_run(exec, &wide, 1);
  Gemm narrow = forward_product(sum.data(), x.at(u_at), Weight::of(b, w.rows, r), n, scale, true);
  narrow.a.ld = row;
  gemm_run(exec, &narrow, 1);
  convert(exec, y, sum.data(), n * w.rows);
}

void router_forward(const Exec& exec, float* logits, ConstPtr x, int64_t x_row, ConstPtr w, int64_t n,
                    int64_t num_experts, int64_t c) {
  Gemm g = product(logits, n, num_experts, c, 1.0f, false);
  g.a = dense_operand(x, x_row, true);
  g.b = dense_operand(w, c, true);
  gemm_run(exec, &g, 1);
}

void router_backward_input(const Exec& exec, Ptr dx, const float* dlogits, ConstPtr w, int64_t n, int64_t num_experts,
                           int64_t c) {
  Gemm g = product(dx, n, c, num_experts, 1.0f, true);
  g.a = dense_operand(dlogits, num_experts, true);
  g.b = dense_operand(w, c, false);
  gemm_run(exec, &g, 1);
}

void router_backward_weight(const Exec& exec, float* dw, const float* dlogits, ConstPtr x, int64_t x_row, int64_t n,
                            int64_t num_experts, int64_t c) {
  Gemm g = product(dw, num_experts, c, n, 1.0f, true);
  g.a = dense_operand(dlogits, num_experts, false);
  g.b = dense_operand(x, x_row, false);
  gemm_run(exec, &g, 1);
}

void bias_backward(const Exec& exec, float* dbias, ConstPtr dy, int64_t n, int64_t out_features) {
  dispatch(dy.dtype, [&]<typename T>() {
    parallel_for(exec, out_features, 64, [&](int64_t first, int64_t last) {
      for (int64_t row = 0; row < n; ++row) {
        for (int64_t o = first; o < last; ++o) dbias[o] += static_cast<float>(dy.as<T>()[row * out_features + o]);
      }
    });
  });
}

void grouped_linear_forward(const Exec& exec, Ptr y, ConstPtr x, ConstPtr w, const int32_t* offsets, int64_t groups,
                            int64_t, int64_t out_features, int64_t in_features, float scale, bool accumulate) {
  run_groups(exec, offsets, groups, [&](int64_t g, int64_t first, int64_t rows) {
    const Weight weight = Weight::of(w.at(g * out_features * in_features), out_features, in_features);
    return forward_product(y.at(first * out_features), x.at(first * in_features), weight, rows, scale, accumulate);
  });
}

void grouped_linear_backward_input(const Exec& exec, Ptr dx, ConstPtr dy, ConstPtr w, const int32_t* offsets,
                                   int64_t groups, int64_t, int64_t out_features, int64_t in_features, float scale,
                                   bool accumulate) {
  run_groups(exec, offsets, groups, [&](int64_t g, int64_t first, int64_t rows) {
    const Weight weight = Weight::of(w.at(g * out_features * in_features), out_features, in_features);
    return backward_input_product(dx.at(first * in_features), dy.at(first * out_features), weight, rows, scale,
                                  accumulate);
  });
}

void grouped_linear_backward_weight(const Exec& exec, Ptr dw, ConstPtr dy, ConstPtr x, const int32_t* offsets,
                                    int64_t groups, int64_t, int64_t out_features, int64_t in_features, float scale) {
  run_groups(exec, offsets, groups, [&](int64_t g, int64_t first, int64_t rows) {
    return backward_weight_product(dw.at(g * out_features * in_features), dy.at(first * out_features),
                                   x.at(first * in_features), rows, out_features, in_features, scale, in_features);
  });
}

}  // namespace caravan::cpu
