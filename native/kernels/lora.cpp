#include "kernels/lora.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(lora_down_forward)
CARAVAN_TWINS(lora_down_backward_weight)
CARAVAN_TWINS(lora_down_backward_input)

void lora_down_forward(const Exec& exec, const LoraPart* parts, int count, ConstPtr x, int64_t x_row, Ptr scratch,
                       int64_t n, int64_t c, int64_t r, float scale) {
  CARAVAN_DISPATCH(lora_down_forward, exec, parts, count, x, x_row, scratch, n, c, r, scale);
}

void lora_down_backward_weight(const Exec& exec, const LoraPart* parts, int count, ConstPtr x, int64_t x_row,
                               Ptr scratch, int64_t n, int64_t c, int64_t r) {
  CARAVAN_DISPATCH(lora_down_backward_weight, exec, parts, count, x, x_row, scratch, n, c, r);
}

void lora_down_backward_input(const Exec& exec, const LoraPart* parts, int count, Ptr dx, Ptr scratch, int64_t n,
                              int64_t c, int64_t r) {
  CARAVAN_DISPATCH(lora_down_backward_input, exec, parts, count, dx, scratch, n, c, r);
}

}  // namespace caravan
