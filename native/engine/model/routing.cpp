#include "engine/model/experts.h"
#include "engine/model/gradient.h"
#include "kernels/matmul.h"
#include "kernels/moe.h"

namespace caravan {

void route_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, ConstPtr x, int64_t x_row,
                   ExpertActivations& experts) {
  const MethodOptions& method = pass.model->method();
  const int64_t n = tokens.n, c = pass.model->config().hidden_size, e = method.num_experts, k = method.top_k;
  router_forward(pass.exec, experts.router_logits, x, x_row, layer.router.value, n, e, c);
  router_topk_forward(pass.exec, experts.chosen, experts.weights, experts.router_logits, n, e, k);
  moe_sort(pass.exec, experts.offsets, experts.source, experts.chosen, tokens.valid, n, e, k);
  moe_invert(pass.exec, experts.inverse, experts.source, experts.rows, n, k);
}

void route_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr dx, ConstPtr x, int64_t x_row,
                    const float* dweights, const ExpertActivations& experts, const BalanceState& balance) {
  const MethodOptions& method = pass.model->method();
  const int64_t n = tokens.n, c = pass.model->config().hidden_size, e = method.num_experts, k = method.top_k;
  ArenaScope scope(*pass.scratch);
  float* dlogits = pass.scratch->take<float>(n * e);
  router_topk_backward(pass.exec, dlogits, dweights, experts.chosen, experts.weights, n, e, k);
  if (balance.coefficient > 0.0f) {
    // The balance term's own share of the gradient is summed apart, to be reported.
    float* dbalance = pass.scratch->take<float>(n * e);
    fill_zero(pass.exec, dbalance, n * e);
    balance_loss_backward(pass.exec, dbalance, balance.coefficient, experts.router_logits, balance.tokens_per_expert,
                          tokens.valid, n, e, k);
    router_backward_weight(pass.exec, balance.gradient, dbalance, x, x_row, n, e, c);
    add_inplace(pass.exec, dlogits, dbalance, n * e);
  }
  add_gradient(pass, *layer.router.parameter,
               [&](Ptr dw) { router_backward_weight(pass.exec, dw.as<float>(), dlogits, x, x_row, n, e, c); });
  router_backward_input(pass.exec, dx, dlogits, layer.router.value, n, e, c);
}

void balance_forward(const Pass& pass, const Tokens& tokens, const ExpertActivations& experts,
                     const BalanceState& balance) {
  const MethodOptions& method = pass.model->method();
  balance_loss_forward(pass.exec, balance.loss, balance.tokens_per_expert, balance.mean_probability,
                       experts.router_logits, experts.chosen, tokens.valid, tokens.n, method.num_experts, method.top_k);
}

}  // namespace caravan
