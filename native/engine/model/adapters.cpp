#include "engine/model/experts.h"
#include "engine/model/gradient.h"
#include "engine/model/projection.h"
#include "kernels/matmul.h"
#include "kernels/moe.h"

namespace caravan {

namespace {

/// (M, C): drop(f) of each dispatched row's token, in scratch. One mask per token, shared by its experts.
Ptr gather_dropped(const Pass& pass, const Layer& layer, const Tokens& tokens, ConstPtr f,
                   const ExpertActivations& experts) {
  const int64_t c = pass.model->config().hidden_size;
  const Ptr gathered = pass.scratch->take(pass.activation, experts.rows * c);
  const DropoutMask mask = dropout_mask(pass, layer, tokens, DropoutSite::adapter);
  ArenaScope scope(*pass.scratch);
  ConstPtr dropped = f;
  if (mask.p > 0.0f) {
    const Ptr masked = pass.scratch->take(pass.activation, tokens.n * c);
    dropout_apply(pass.exec, masked, f, mask, tokens.n, c, false);
    dropped = masked;
  }
  moe_gather(pass.exec, gathered, dropped, experts.source, experts.rows, c, pass.model->method().top_k);
  return gathered;
}

}  // namespace

void adapters_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr y, ConstPtr f,
                      ExpertActivations& experts) {
  const MethodOptions& method = pass.model->method();
  const int64_t c = pass.model->config().hidden_size, e = method.num_experts, a = method.adapter_dim;
  const int64_t m = experts.rows;
  ArenaScope scope(*pass.scratch);
  const Ptr gathered = gather_dropped(pass, layer, tokens, f, experts);
  grouped_linear_forward(pass.exec, experts.hidden, gathered, layer.adapter_down.value, experts.offsets, e, m, a, c,
                         1.0f, false);
  gelu_forward(pass.exec, experts.activated, experts.hidden, m * a);
  grouped_linear_forward(pass.exec, experts.output, experts.activated, layer.adapter_up.value, experts.offsets, e, m, c,
                         a, 1.0f, false);
  moe_combine_forward(pass.exec, y, experts.output, experts.weights, experts.inverse, tokens.n, c, method.top_k,
                      method.adapter_scale);
}

void adapters_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr df, float* dweights, ConstPtr dy,
                       ConstPtr f, const ExpertActivations& experts) {
  const MethodOptions& method = pass.model->method();
  const int64_t n = tokens.n, m = experts.rows;
  const int64_t c = pass.model->config().hidden_size, e = method.num_experts, a = method.adapter_dim;
  const int64_t k = method.top_k;
  ArenaScope scope(*pass.scratch);
  const Ptr doutput = pass.scratch->take(pass.activation, m * c);
  moe_combine_backward(pass.exec, doutput, dweights, dy, experts.output, experts.weights, experts.source,
                       experts.inverse, n, m, c, k, method.adapter_scale);

  const Ptr dhidden = pass.scratch->take(pass.activation, m * a);
  grouped_linear_backward_input(pass.exec, dhidden, doutput, layer.adapter_up.value, experts.offsets, e, m, c, a, 1.0f,
                                false);
  add_gradient(pass, *layer.adapter_up.parameter, [&](Ptr dw) {
    grouped_linear_backward_weight(pass.exec, dw, doutput, experts.activated, experts.offsets, e, m, c, a, 1.0f);
  });
  gelu_backward(pass.exec, dhidden, dhidden, experts.hidden, m * a);

  const Ptr gathered = gather_dropped(pass, layer, tokens, f, experts);
  add_gradient(pass, *layer.adapter_down.parameter, [&](Ptr dw) {
    grouped_linear_backward_weight(pass.exec, dw, dhidden, gathered, experts.offsets, e, m, a, c, 1.0f);
  });
  const Ptr dgathered = gathered;  // its last reader was the line above
  grouped_linear_backward_input(pass.exec, dgathered, dhidden, layer.adapter_down.value, experts.offsets, e, m, a, c,
                                1.0f, false);

  // df += drop'(sum over the token's experts of dgathered).
  const DropoutMask mask = dropout_mask(pass, layer, tokens, DropoutSite::adapter);
  if (mask.p == 0.0f) {
    moe_combine_forward(pass.exec, df, dgathered, nullptr, experts.inverse, n, c, k, 1.0f);
    return;
  }
  const Ptr ddropped = pass.scratch->take(pass.activation, n * c);
  fill_zero(pass.exec, ddropped, n * c);
  moe_combine_forward(pass.exec, ddropped, dgathered, nullptr, experts.inverse, n, c, k, 1.0f);
  dropout_apply(pass.exec, df, ddropped, mask, n, c, true);
}

}  // namespace caravan
