#include "kernels/dropout.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(dropout_kept)
CARAVAN_TWINS(dropout_apply)

void dropout_kept(const Exec& exec, uint32_t* kept, const DropoutMask& mask, int64_t n, int64_t c) {
  CARAVAN_DISPATCH(dropout_kept, exec, kept, mask, n, c);
}

void dropout_apply(const Exec& exec, Ptr y, ConstPtr x, const uint32_t* kept, float scale, int64_t n, int64_t c,
                   bool accumulate) {
  CARAVAN_DISPATCH(dropout_apply, exec, y, x, kept, scale, n, c, accumulate);
}

}  // namespace caravan
