#include "kernels/matmul.h"

#include "kernels/cpu/element.h"
#include "kernels/cpu/matmul_reference.h"

namespace caravan::cpu {

void linear_forward(const Exec& exec, Ptr y, ConstPtr x, const Weight& w, const float* bias, int64_t n, float scale,
                    bool accumulate) {
  parallel_for(exec, n, 1, [&](int64_t first, int64_t last) {
    reference::linear_forward(y.at(first * w.rows), x.at(first * w.cols), w, bias, last - first, scale, accumulate);
  });
}

void linear_backward_input(const Exec& exec, Ptr dx, ConstPtr dy, const Weight& w, int64_t n, float scale,
                           bool accumulate) {
  parallel_for(exec, n, 1, [&](int64_t first, int64_t last) {
    reference::linear_backward_input(dx.at(first * w.cols), dy.at(first * w.rows), w, last - first, scale, accumulate);
  });
}

void linear_backward_weight(const Exec&, Ptr dw, ConstPtr dy, ConstPtr x, int64_t n, int64_t out_features,
                            int64_t in_features, float scale) {
  reference::linear_backward_weight(dw, dy, x, n, out_features, in_features, scale);
}

void bias_backward(const Exec& exec, float* dbias, ConstPtr dy, int64_t n, int64_t out_features) {
  parallel_for(exec, out_features, 64, [&](int64_t first, int64_t last) {
    for (int64_t row = 0; row < n; ++row) {
      for (int64_t o = first; o < last; ++o) dbias[o] += load_element(dy, row * out_features + o);
    }
  });
}

void grouped_linear_forward(const Exec& exec, Ptr y, ConstPtr x, ConstPtr w, const int32_t* offsets, int64_t groups,
                            int64_t, int64_t out_features, int64_t in_features, float scale, bool accumulate) {
  for (int64_t g = 0; g < groups; ++g) {
    const Weight weight = Weight::of(w.at(g * out_features * in_features), out_features, in_features);
    cpu::linear_forward(exec, y.at(offsets[g] * out_features), x.at(offsets[g] * in_features), weight, nullptr,
                   offsets[g + 1] - offsets[g], scale, accumulate);
  }
}

void grouped_linear_backward_input(const Exec& exec, Ptr dx, ConstPtr dy, ConstPtr w, const int32_t* offsets,
                                   int64_t groups, int64_t, int64_t out_features, int64_t in_features, float scale,
                                   bool accumulate) {
  for (int64_t g = 0; g < groups; ++g) {
    const Weight weight = Weight::of(w.at(g * out_features * in_features), out_features, in_features);
    cpu::linear_backward_input(exec, dx.at(offsets[g] * in_features), dy.at(offsets[g] * out_features), weight,
                          offsets[g + 1] - offsets[g], scale, accumulate);
  }
}

void grouped_linear_backward_weight(const Exec& exec, Ptr dw, ConstPtr dy, ConstPtr x, const int32_t* offsets,
                                    int64_t groups, int64_t, int64_t out_features, int64_t in_features, float scale) {
  for (int64_t g = 0; g < groups; ++g) {
    cpu::linear_backward_weight(exec, dw.at(g * out_features * in_features), dy.at(offsets[g] * out_features),
                           x.at(offsets[g] * in_features), offsets[g + 1] - offsets[g], out_features, in_features,
                           scale);
  }
}

}  // namespace caravan::cpu
