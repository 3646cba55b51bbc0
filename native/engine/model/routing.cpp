#include "engine/model/experts.h"
#include "engine/model/gradient.h"
#include "kernels/matmul.h"
#include "kernels/moe.h"

namespace caravan {

namespace {

/// The router works in f32 whatever the activations are.
ConstPtr in_f32(const Pass& pass, ConstPtr x, int64_t count) {
  if (x.dtype == DType::f32) return x;
  const Ptr copy = pass.scratch->take(DType::f32, count);
  convert(pass.exec, copy, x, count);
  return copy;
}

}  // namespace

void route_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, ConstPtr x, ExpertActivations& experts) {
  const MethodOptions& method = pass.model->method();
  const int64_t n = tokens.n, c = pass.model->config().hidden_size, e = method.num_experts, k = method.top_k;
  ArenaScope scope(*pass.scratch);
  const ConstPtr x32 = in_f32(pass, x, n * c);
  linear_forward(pass.exec, experts.router_logits, x32, Weight::of(layer.router.value, e, c), nullptr, n, 1.0f, false);
  router_topk_forward(pass.exec, experts.chosen, experts.weights, experts.router_logits, n, e, k);
  moe_sort(pass.exec, experts.offsets, experts.source, experts.chosen, tokens.valid, n, e, k);
  moe_invert(pass.exec, experts.inverse, experts.source, experts.rows, n, k);
}

void route_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr dx, ConstPtr x,
                    const float* dweights, const ExpertActivations& experts, const BalanceState& balance) {
  const MethodOptions& method = pass.model->method();
  const int64_t n = tokens.n, c = pass.model->config().hidden_size, e = method.num_experts, k = method.top_k;
  ArenaScope scope(*pass.scratch);
  const ConstPtr x32 = in_f32(pass, x, n * c);
  float* dlogits = pass.scratch->take<float>(n * e);
  router_topk_backward(pass.exec, dlogits, dweights, experts.chosen, experts.weights, n, e, k);
  if (balance.coefficient > 0.0f) {
    // The balance term's own share of the gradient is summed apart, to be reported.
    float* dbalance = pass.scratch->take<float>(n * e);
    fill_zero(pass.exec, dbalance, n * e);
    balance_loss_backward(pass.exec, dbalance, balance.coefficient, experts.router_logits, balance.tokens_per_expert,
                          tokens.valid, n, e, k);
    linear_backward_weight(pass.exec, balance.gradient, dbalance, x32, n, e, c, 1.0f);
    add_inplace(pass.exec, dlogits, dbalance, n * e);
  }
  add_gradient(pass, *layer.router.parameter,
               [&](Ptr dw) { linear_backward_weight(pass.exec, dw, dlogits, x32, n, e, c, 1.0f); });
  linear_backward_input(pass.exec, dx, dlogits, Weight::of(layer.router.value, e, c), n, 1.0f, true);
}

void balance_forward(const Pass& pass, const Tokens& tokens, const ExpertActivations& experts,
                     const BalanceState& balance) {
  const MethodOptions& method = pass.model->method();
  balance_loss_forward(pass.exec, balance.loss, balance.tokens_per_expert, balance.mean_probability,
                       experts.router_logits, experts.chosen, tokens.valid, tokens.n, method.num_experts, method.top_k);
}

}  // namespace caravan
