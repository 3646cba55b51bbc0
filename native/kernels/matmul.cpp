#include "kernels/matmul.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(linear_forward)
CARAVAN_TWINS(linear_backward_input)
CARAVAN_TWINS(linear_backward_weight)
CARAVAN_TWINS(linear_lora_forward)
CARAVAN_TWINS(router_forward)
CARAVAN_TWINS(router_backward_input)
CARAVAN_TWINS(router_backward_weight)
CARAVAN_TWINS(bias_backward)
CARAVAN_TWINS(grouped_linear_forward)
CARAVAN_TWINS(grouped_linear_backward_input)
CARAVAN_TWINS(grouped_linear_backward_weight)

void linear_forward(const Exec& exec, Ptr y, ConstPtr x, const Weight& w, const float* bias, int64_t n, float scale,
                    bool accumulate) {
  CARAVAN_DISPATCH(linear_forward, exec, y, x, w, bias, n, scale, accumulate);
}

void linear_backward_input(const Exec& exec, Ptr dx, ConstPtr dy, const Weight& w, int64_t n, float scale,
                           bool accumulate) {
  CARAVAN_DISPATCH(linear_backward_input, exec, dx, dy, w, n, scale, accumulate);
}

void linear_backward_weight(const Exec& exec, Ptr dw, ConstPtr dy, ConstPtr x, int64_t n, int64_t out_features,
                            int64_t in_features, float scale, int64_t x_row) {
  CARAVAN_DISPATCH(linear_backward_weight, exec, dw, dy, x, n, out_features, in_features, scale,
                   x_row == 0 ? in_features : x_row);
}

void linear_lora_forward(const Exec& exec, Ptr y, ConstPtr x, int64_t row, const Weight& w, const float* bias,
                         ConstPtr b, float scale, int64_t u_at, int64_t r, int64_t n) {
  CARAVAN_DISPATCH(linear_lora_forward, exec, y, x, row, w, bias, b, scale, u_at, r, n);
}

void router_forward(const Exec& exec, float* logits, ConstPtr x, int64_t x_row, ConstPtr w, int64_t n,
                    int64_t num_experts, int64_t c) {
  CARAVAN_DISPATCH(router_forward, exec, logits, x, x_row, w, n, num_experts, c);
}

void router_backward_input(const Exec& exec, Ptr dx, const float* dlogits, ConstPtr w, int64_t n, int64_t num_experts,
                           int64_t c) {
  CARAVAN_DISPATCH(router_backward_input, exec, dx, dlogits, w, n, num_experts, c);
}

void router_backward_weight(const Exec& exec, float* dw, const float* dlogits, ConstPtr x, int64_t x_row, int64_t n,
                            int64_t num_experts, int64_t c) {
  CARAVAN_DISPATCH(router_backward_weight, exec, dw, dlogits, x, x_row, n, num_experts, c);
}

void bias_backward(const Exec& exec, float* dbias, ConstPtr dy, int64_t n, int64_t out_features) {
  CARAVAN_DISPATCH(bias_backward, exec, dbias, dy, n, out_features);
}

void grouped_linear_forward(const Exec& exec, Ptr y, ConstPtr x, ConstPtr w, const int32_t* offsets, int64_t groups,
                            int64_t n, int64_t out_features, int64_t in_features, float scale, bool accumulate) {
  CARAVAN_DISPATCH(grouped_linear_forward, exec, y, x, w, offsets, groups, n, out_features, in_features, scale,
                   accumulate);
}

void grouped_linear_backward_input(const Exec& exec, Ptr dx, ConstPtr dy, ConstPtr w, const int32_t* offsets,
                                   int64_t groups, int64_t n, int64_t out_features, int64_t in_features, float scale,
                                   bool accumulate) {
  CARAVAN_DISPATCH(grouped_linear_backward_input, exec, dx, dy, w, offsets, groups, n, out_features, in_features, scale,
                   accumulate);
}

void grouped_linear_backward_weight(const Exec& exec, Ptr dw, ConstPtr dy, ConstPtr x, const int32_t* offsets,
                                    int64_t groups, int64_t n, int64_t out_features, int64_t in_features, float scale) {
  CARAVAN_DISPATCH(grouped_linear_backward_weight, exec, dw, dy, x, offsets, groups, n, out_features, in_features,
                   scale);
}

}  // namespace caravan
