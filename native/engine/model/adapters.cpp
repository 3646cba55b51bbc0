#include "engine/model/experts.h"
#include "engine/model/gradient.h"
#include "engine/model/projection.h"
#include "kernels/matmul.h"
#include "kernels/moe.h"

namespace caravan {

namespace {

/// What dropout multiplies by where it keeps.
float keep_scale(const Pass& pass) {
  return pass.dropout ? 1.0f / (1.0f - pass.model->method().adapter_dropout) : 1.0f;
}

/// The mask of the adapters' input: one per token, shared by its experts. Null where nothing is dropped.
const uint32_t* kept_of(const Pass& pass, const ExpertActivations& experts) {
  return pass.dropout ? experts.kept : nullptr;
}

/// (M, C): drop(f) of each dispatched row's token, in scratch.
Ptr gather_dropped(const Pass& pass, ConstPtr f, const ExpertActivations& experts) {
  const int64_t c = pass.model->config().hidden_size;
  const Ptr gathered = pass.scratch->take(pass.activation, experts.rows * c);
  moe_gather(pass.exec, gathered, f, experts.source, kept_of(pass, experts), keep_scale(pass), experts.rows, c,
             pass.model->method().top_k);
  return gathered;
}

}  // namespace

void adapters_apart(const Pass& pass, const Layer& layer, const Tokens& tokens, ConstPtr f,
                    ExpertActivations& experts) {
  const MethodOptions& method = pass.model->method();
  const int64_t c = pass.model->config().hidden_size, e = method.num_experts, a = method.adapter_dim;
  const int64_t m = experts.rows;
  ArenaScope scope(*pass.scratch);
  const DropoutMask mask = dropout_mask(pass, layer, tokens, DropoutSite::adapter);
  if (mask.p > 0.0f && !pass.masks_are_drawn) dropout_kept(pass.exec, experts.kept, mask, tokens.n, c);
  const Ptr gathered = gather_dropped(pass, f, experts);
  grouped_linear_forward(pass.exec, experts.hidden, gathered, layer.adapter_down.value, experts.offsets, e, m, a, c,
                         1.0f, false);
  gelu_forward(pass.exec, experts.activated, experts.hidden, m * a);
  grouped_linear_forward(pass.exec, experts.output, experts.activated, layer.adapter_up.value, experts.offsets, e, m, c,
                         a, 1.0f, false);
}

void adapters_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr y, ConstPtr stream, ConstPtr f,
                      ExpertActivations& experts) {
  const MethodOptions& method = pass.model->method();
  adapters_apart(pass, layer, tokens, f, experts);
  moe_combine_residual(pass.exec, y, stream, f, experts.output, experts.weights, experts.inverse, tokens.n,
                       pass.model->config().hidden_size, method.top_k, method.adapter_scale);
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

  const Ptr gathered = gather_dropped(pass, f, experts);
  add_gradient(pass, *layer.adapter_down.parameter, [&](Ptr dw) {
    grouped_linear_backward_weight(pass.exec, dw, dhidden, gathered, experts.offsets, e, m, a, c, 1.0f);
  });
  const Ptr dgathered = gathered;  // its last reader was the line above
  grouped_linear_backward_input(pass.exec, dgathered, dhidden, layer.adapter_down.value, experts.offsets, e, m, a, c,
                                1.0f, false);

  moe_gather_backward(pass.exec, df, dy, dgathered, experts.inverse, kept_of(pass, experts), keep_scale(pass), n, c, k);
}

}  // namespace caravan
