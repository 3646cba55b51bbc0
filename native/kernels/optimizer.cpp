#include "kernels/optimizer.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(adamw_update)
CARAVAN_TWINS(adamw8bit_update)
CARAVAN_TWINS(squared_norm)
CARAVAN_TWINS(squared_norm_add)
CARAVAN_TWINS(clip_scale)
CARAVAN_TWINS(stochastic_round)

void adamw_update(const Exec& exec, Ptr p, ConstPtr g, float* m, float* v, int64_t count, const AdamWOptions& options) {
  CARAVAN_DISPATCH(adamw_update, exec, p, g, m, v, count, options);
}

void adamw8bit_update(const Exec& exec, Ptr p, ConstPtr g, uint8_t* state1, uint8_t* state2, float* absmax1,
                      float* absmax2, int64_t count, const AdamWOptions& options) {
  CARAVAN_DISPATCH(adamw8bit_update, exec, p, g, state1, state2, absmax1, absmax2, count, options);
}

double squared_norm(const Exec& exec, ConstPtr g, int64_t count) { CARAVAN_DISPATCH(squared_norm, exec, g, count); }

void squared_norm_add(const Exec& exec, double* sum, ConstPtr g, int64_t count) {
  CARAVAN_DISPATCH(squared_norm_add, exec, sum, g, count);
}

void clip_scale(const Exec& exec, float* scale, double* norm, const double* squared, const double* losses,
                float max_norm) {
  CARAVAN_DISPATCH(clip_scale, exec, scale, norm, squared, losses, max_norm);
}

void stochastic_round(const Exec& exec, bf16* y, const float* x, int64_t count, uint32_t seed, uint32_t step,
                      uint32_t parameter, uint32_t micro) {
  CARAVAN_DISPATCH(stochastic_round, exec, y, x, count, seed, step, parameter, micro);
}

}  // namespace caravan
