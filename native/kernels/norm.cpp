#include "kernels/norm.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(rmsnorm_forward)
CARAVAN_TWINS(rmsnorm_backward)

void rmsnorm_forward(const Exec& exec, Ptr y, float* rstd, ConstPtr x, ConstPtr weight, int64_t n, int64_t c, float eps,
                     int64_t y_row) {
  CARAVAN_DISPATCH(rmsnorm_forward, exec, y, rstd, x, weight, n, c, eps, y_row == 0 ? c : y_row);
}

void rmsnorm_backward(const Exec& exec, Ptr dx, float* dweight, ConstPtr dy, ConstPtr x, const float* rstd,
                      ConstPtr weight, int64_t n, int64_t c, bool accumulate) {
  CARAVAN_DISPATCH(rmsnorm_backward, exec, dx, dweight, dy, x, rstd, weight, n, c, accumulate);
}

}  // namespace caravan
