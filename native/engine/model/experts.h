// Routing, and the two kinds of experts: PESC's adapters behind the shared FFN (arXiv 2401.02731), and whole FFNs
// (sparse upcycling, arXiv 2212.05055). E experts, K per token, M dispatched rows.
#pragma once

#include "engine/model/layer.h"

namespace caravan {

/// x (N, C; rows of x_row elements), the router's and the FFN's input -> logits, chosen experts, weights and the dispatch order.
void route_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, ConstPtr x, int64_t x_row,
                   ExpertActivations& experts);
/// dx (N, C) += through the router from dweights (N, K) and the balance loss; adds to the router's gradient.
void route_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr dx, ConstPtr x, int64_t x_row,
                    const float* dweights, const ExpertActivations& experts, const BalanceState& balance);

/// Every adapter's output for the rows dispatched to it, and what leads to it: Up_k(gelu(Down_k(drop(f)))).
void adapters_apart(const Pass& pass, const Layer& layer, const Tokens& tokens, ConstPtr f, ExpertActivations& experts);
/// y (N, C) = stream + f + s * sum_k w_k Up_k(gelu(Down_k(drop(f)))).
void adapters_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr y, ConstPtr stream, ConstPtr f,
                      ExpertActivations& experts);
/// df (N, C) = ; dweights (N, K) f32 = ; from dy (N, C).
void adapters_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr df, float* dweights, ConstPtr dy,
                       ConstPtr f, const ExpertActivations& experts);

/// y (N, C) += sum_k w_k FFN_k(x).
void expert_ffn_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr y, ConstPtr x,
                        ExpertActivations& experts);
/// dx (N, C) = ; dweights (N, K) f32 = ; from dy (N, C).
void expert_ffn_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr dx, float* dweights,
                         ConstPtr dy, ConstPtr x, const ExpertActivations& experts);

}  // namespace caravan
