#include "kernels/lora_composed.h"

namespace caravan::cpu {

void lora_down_forward(const Exec& exec, const LoraPart* parts, int count, ConstPtr x, int64_t x_row, Ptr scratch,
                       int64_t n, int64_t c, int64_t r, float scale) {
  for (int p = 0; p < count; ++p) composed_forward(exec, parts[p], x, x_row, scratch, n, c, r, scale);
}

void lora_down_backward_weight(const Exec& exec, const LoraPart* parts, int count, ConstPtr x, int64_t x_row,
                               Ptr scratch, int64_t n, int64_t c, int64_t r) {
  for (int p = 0; p < count; ++p) composed_backward_weight(exec, parts[p], x, x_row, scratch, n, c, r);
}

void lora_down_backward_input(const Exec& exec, const LoraPart* parts, int count, Ptr dx, Ptr scratch, int64_t n,
                              int64_t c, int64_t r) {
  for (int p = 0; p < count; ++p) composed_backward_input(exec, parts[p], dx, scratch, n, c, r);
}

}  // namespace caravan::cpu
