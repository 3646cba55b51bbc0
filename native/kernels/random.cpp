#include "kernels/random.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(fill_uniform)
CARAVAN_TWINS(fill_normal)
CARAVAN_TWINS(fill_constant)

void fill_uniform(const Exec& exec, Ptr values, int64_t count, float bound, uint32_t seed, uint32_t parameter) {
  CARAVAN_DISPATCH(fill_uniform, exec, values, count, bound, seed, parameter);
}

void fill_normal(const Exec& exec, Ptr values, int64_t count, float deviation, uint32_t seed, uint32_t parameter) {
  CARAVAN_DISPATCH(fill_normal, exec, values, count, deviation, seed, parameter);
}

void fill_constant(const Exec& exec, Ptr values, int64_t count, float value) {
  CARAVAN_DISPATCH(fill_constant, exec, values, count, value);
}

}  // namespace caravan
