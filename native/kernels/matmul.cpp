#include "kernels/matmul.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(linear_forward)
CARAVAN_TWINS(linear_backward_input)
CARAVAN_TWINS(linear_backward_weight)
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
                            int64_t in_features, float scale) {
  CARAVAN_DISPATCH(linear_backward_weight, exec, dw, dy, x, n, out_features, in_features, scale);
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
