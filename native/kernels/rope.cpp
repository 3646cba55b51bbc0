#include "kernels/rope.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(rope_apply)

void rope_apply(const Exec& exec, Ptr x, const float* cos, const float* sin, const int32_t* positions, int64_t n,
                int64_t heads, int64_t head_dim, bool inverse) {
  CARAVAN_DISPATCH(rope_apply, exec, x, cos, sin, positions, n, heads, head_dim, inverse);
}

}  // namespace caravan
