#include "kernels/cpu/matmul_reference.h"

#include "kernels/cpu/element.h"

namespace caravan::cpu::reference {
namespace {

float nf4_value(const Nf4View& w, int64_t i) {
  const uint8_t byte = w.packed[i / 2];
  const int code = i % 2 == 0 ? byte >> 4 : byte & 15;
  const int64_t block = i / nf4_block;
  const float absmax = w.absmax_u8 == nullptr
                           ? w.absmax[block]
                           : dynamic_code_signed[w.absmax_u8[block]] * w.absmax2[block / nf4_nested_block] + w.offset;
  return nf4_code[static_cast<size_t>(code)] * absmax;
}

void store_result(Ptr y, int64_t i, double value, bool accumulate) {
  if (accumulate) value += load_element(y, i);
  store_element(y, i, static_cast<float>(value));
}

}  // namespace

float weight_value(const Weight& w, int64_t row, int64_t col, DType activations) {
  const int64_t i = row * w.cols + col;
  return round_to(activations, w.nf4 != nullptr ? nf4_value(*w.nf4, i) : load_element(w.dense, i));
}

void linear_forward(Ptr y, ConstPtr x, const Weight& w, const float* bias, int64_t n, float scale, bool accumulate) {
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t o = 0; o < w.rows; ++o) {
      double sum = 0.0;
      for (int64_t c = 0; c < w.cols; ++c) {
        sum += static_cast<double>(load_element(x, row * w.cols + c)) * weight_value(w, o, c, x.dtype);
      }
      store_result(y, row * w.rows + o, scale * sum + (bias == nullptr ? 0.0f : bias[o]), accumulate);
    }
  }
}

void linear_backward_input(Ptr dx, ConstPtr dy, const Weight& w, int64_t n, float scale, bool accumulate) {
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t c = 0; c < w.cols; ++c) {
      double sum = 0.0;
      for (int64_t o = 0; o < w.rows; ++o) {
        sum += static_cast<double>(load_element(dy, row * w.rows + o)) * weight_value(w, o, c, dy.dtype);
      }
      store_result(dx, row * w.cols + c, scale * sum, accumulate);
    }
  }
}

void linear_backward_weight(Ptr dw, ConstPtr dy, ConstPtr x, int64_t n, int64_t out_features, int64_t in_features,
                            float scale) {
  for (int64_t o = 0; o < out_features; ++o) {
    for (int64_t c = 0; c < in_features; ++c) {
      double sum = 0.0;
      for (int64_t row = 0; row < n; ++row) {
        sum += static_cast<double>(load_element(dy, row * out_features + o)) * load_element(x, row * in_features + c);
      }
      store_result(dw, o * in_features + c, scale * sum, true);
    }
  }
}

}  // namespace caravan::cpu::reference
