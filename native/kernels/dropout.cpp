#include "kernels/dropout.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(dropout_apply)

void dropout_apply(const Exec& exec, Ptr y, ConstPtr x, const DropoutMask& mask, int64_t n, int64_t c,
                   bool accumulate) {
  CARAVAN_DISPATCH(dropout_apply, exec, y, x, mask, n, c, accumulate);
}

}  // namespace caravan
