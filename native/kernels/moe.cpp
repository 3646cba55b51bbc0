#include "kernels/moe.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(router_topk_forward)
CARAVAN_TWINS(router_topk_backward)
CARAVAN_TWINS(moe_sort)
CARAVAN_TWINS(moe_gather)
CARAVAN_TWINS(moe_gather_backward)
CARAVAN_TWINS(moe_combine_residual)
CARAVAN_TWINS(moe_combine_forward)
CARAVAN_TWINS(moe_combine_backward)
CARAVAN_TWINS(moe_invert)
CARAVAN_TWINS(balance_loss_forward)
CARAVAN_TWINS(balance_loss_backward)

void router_topk_forward(const Exec& exec, int32_t* experts, float* weights, const float* router_logits, int64_t n,
                         int64_t num_experts, int64_t top_k) {
  CARAVAN_DISPATCH(router_topk_forward, exec, experts, weights, router_logits, n, num_experts, top_k);
}

void router_topk_backward(const Exec& exec, float* drouter_logits, const float* dweights, const int32_t* experts,
                          const float* weights, int64_t n, int64_t num_experts, int64_t top_k) {
  CARAVAN_DISPATCH(router_topk_backward, exec, drouter_logits, dweights, experts, weights, n, num_experts, top_k);
}

void moe_sort(const Exec& exec, int32_t* offsets, int32_t* source, const int32_t* experts, const uint8_t* valid,
              int64_t n, int64_t num_experts, int64_t top_k) {
  CARAVAN_DISPATCH(moe_sort, exec, offsets, source, experts, valid, n, num_experts, top_k);
}

void moe_gather(const Exec& exec, Ptr out, ConstPtr x, const int32_t* source, const uint32_t* kept, float keep_scale,
                int64_t m, int64_t c, int64_t top_k) {
  CARAVAN_DISPATCH(moe_gather, exec, out, x, source, kept, keep_scale, m, c, top_k);
}

void moe_gather_backward(const Exec& exec, Ptr dx, ConstPtr dy, ConstPtr dgathered, const int32_t* inverse,
                         const uint32_t* kept, float keep_scale, int64_t n, int64_t c, int64_t top_k) {
  CARAVAN_DISPATCH(moe_gather_backward, exec, dx, dy, dgathered, inverse, kept, keep_scale, n, c, top_k);
}

void moe_combine_residual(const Exec& exec, Ptr y, ConstPtr stream, ConstPtr branch, ConstPtr expert_out,
                          const float* weights, const int32_t* inverse, int64_t n, int64_t c, int64_t top_k,
                          float scale) {
  CARAVAN_DISPATCH(moe_combine_residual, exec, y, stream, branch, expert_out, weights, inverse, n, c, top_k, scale);
}

void moe_combine_forward(const Exec& exec, Ptr y, ConstPtr expert_out, const float* weights, const int32_t* inverse,
                         int64_t n, int64_t c, int64_t top_k, float scale) {
  CARAVAN_DISPATCH(moe_combine_forward, exec, y, expert_out, weights, inverse, n, c, top_k, scale);
}

void moe_combine_backward(const Exec& exec, Ptr dexpert_out, float* dweights, ConstPtr dy, ConstPtr expert_out,
                          const float* weights, const int32_t* source, const int32_t* inverse, int64_t n, int64_t m,
                          int64_t c, int64_t top_k, float scale) {
  CARAVAN_DISPATCH(moe_combine_backward, exec, dexpert_out, dweights, dy, expert_out, weights, source, inverse, n, m, c,
                   top_k, scale);
}

void moe_invert(const Exec& exec, int32_t* inverse, const int32_t* source, int64_t m, int64_t n, int64_t top_k) {
  CARAVAN_DISPATCH(moe_invert, exec, inverse, source, m, n, top_k);
}

void balance_loss_forward(const Exec& exec, float* loss, int64_t* tokens_per_expert, float* mean_probability,
                          const float* router_logits, const int32_t* experts, const uint8_t* valid, int64_t n,
                          int64_t num_experts, int64_t top_k) {
  CARAVAN_DISPATCH(balance_loss_forward, exec, loss, tokens_per_expert, mean_probability, router_logits, experts, valid,
                   n, num_experts, top_k);
}

void balance_loss_backward(const Exec& exec, float* drouter_logits, float coefficient, const float* router_logits,
                           const int64_t* tokens_per_expert, const uint8_t* valid, int64_t n, int64_t num_experts,
                           int64_t top_k) {
  CARAVAN_DISPATCH(balance_loss_backward, exec, drouter_logits, coefficient, router_logits, tokens_per_expert, valid, n,
                   num_experts, top_k);
}

}  // namespace caravan
