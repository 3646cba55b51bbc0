// Routing of tokens to experts: top-k choice, dispatch by a stable sort, combination, and the balance loss
// (PESC, arXiv 2401.02731, equations 8 to 12; Fedus et al., arXiv 2101.03961, for F and P).
#pragma once

#include "kernels/exec.h"

namespace caravan {

/// From router_logits (N, E) f32: the K largest per row in descending order (ties: the lower expert first) and the
/// softmax over those K. experts (N, K), weights (N, K) f32.
void router_topk_forward(const Exec& exec, int32_t* experts, float* weights, const float* router_logits, int64_t n,
                         int64_t num_experts, int64_t top_k);
/// drouter_logits (N, E) f32 is overwritten (zero outside the chosen K) from dweights (N, K).
void router_topk_backward(const Exec& exec, float* drouter_logits, const float* dweights, const int32_t* experts,
                          const float* weights, int64_t n, int64_t num_experts, int64_t top_k);

/// Stable counting sort of the N * K (token, slot) assignments by expert. `valid` (N, may be null) excludes padding
/// rows. offsets (E + 1): rows of expert e are [offsets[e], offsets[e + 1]) of the dispatched order; source (N * K):
/// the assignment n * K + k at each dispatched row; returns (through offsets[E]) how many rows there are.
void moe_sort(const Exec& exec, int32_t* offsets, int32_t* source, const int32_t* experts, const uint8_t* valid,
              int64_t n, int64_t num_experts, int64_t top_k);

/// out (M, C)[r] = x[source[r] / K]. With `kept` (N, kept_words(C); see dropout.h) what is kept is multiplied by
/// keep_scale and the rest 0: one mask per token, shared by its experts.
void moe_gather(const Exec& exec, Ptr out, ConstPtr x, const int32_t* source, const uint32_t* kept, float keep_scale,
                int64_t m, int64_t c, int64_t top_k);
/// dx (N, C) = dy + what comes back through moe_gather from dgathered (M, C): the sum over the token's slots in their
/// order, rounded where there is a mask to meet, masked and scaled. dx may be dy.
void moe_gather_backward(const Exec& exec, Ptr dx, ConstPtr dy, ConstPtr dgathered, const int32_t* inverse,
                         const uint32_t* kept, float keep_scale, int64_t n, int64_t c, int64_t top_k);
/// y (N, C)[t] += scale * sum over the slots k of t, in slot order, of weights[t, k] * expert_out[row of (t, k)].
/// weights null means 1: the backward pass of moe_gather. `inverse` (N * K): dispatched row of each assignment or -1.
void moe_combine_forward(const Exec& exec, Ptr y, ConstPtr expert_out, const float* weights, const int32_t* inverse,
                         int64_t n, int64_t c, int64_t top_k, float scale);
/// y (N, C) = the same sum added to stream + branch, which are added and rounded first.
void moe_combine_residual(const Exec& exec, Ptr y, ConstPtr stream, ConstPtr branch, ConstPtr expert_out,
                          const float* weights, const int32_t* inverse, int64_t n, int64_t c, int64_t top_k,
                          float scale);
/// dexpert_out (M, C)[r] = scale * weights[t, k] * dy[t]; dweights (N, K) f32 = scale * dot(dy[t], expert_out[r])
/// (0 for padding).
void moe_combine_backward(const Exec& exec, Ptr dexpert_out, float* dweights, ConstPtr dy, ConstPtr expert_out,
                          const float* weights, const int32_t* source, const int32_t* inverse, int64_t n, int64_t m,
                          int64_t c, int64_t top_k, float scale);
/// inverse (N * K) from source (M): -1 where an assignment was excluded.
void moe_invert(const Exec& exec, int32_t* inverse, const int32_t* source, int64_t m, int64_t n, int64_t top_k);

/// Balance loss of one layer and micro-batch, unscaled by alpha: E * sum_i F_i P_i, F_i = share of the (token, slot)
/// assignments of valid tokens that chose i, P_i = mean over valid tokens of softmax over all E logits. Returned in
/// *loss (f32); `tokens_per_expert` (E, int64) counts assignments; `mean_probability` (E, f32) keeps P.
void balance_loss_forward(const Exec& exec, float* loss, int64_t* tokens_per_expert, float* mean_probability,
                          const float* router_logits, const int32_t* experts, const uint8_t* valid, int64_t n,
                          int64_t num_experts, int64_t top_k);
/// drouter_logits (N, E) += coefficient * d(loss)/d(logits); F carries no gradient.
void balance_loss_backward(const Exec& exec, float* drouter_logits, float coefficient, const float* router_logits,
                           const int64_t* tokens_per_expert, const uint8_t* valid, int64_t n, int64_t num_experts,
                           int64_t top_k);

}  // namespace caravan
