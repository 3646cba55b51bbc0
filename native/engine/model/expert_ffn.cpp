#include "engine/model/experts.h"
#include "engine/model/gradient.h"
#include "kernels/matmul.h"
#include "kernels/moe.h"

namespace caravan {

namespace {

/// (M, C): x of each dispatched row's token, in scratch.
Ptr gather(const Pass& pass, ConstPtr x, const ExpertActivations& experts) {
  const int64_t c = pass.model->config().hidden_size;
  const Ptr gathered = pass.scratch->take(pass.activation, experts.rows * c);
  moe_gather(pass.exec, gathered, x, experts.source, nullptr, 1.0f, experts.rows, c, pass.model->method().top_k);
  return gathered;
}

}  // namespace

void expert_ffn_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr y, ConstPtr x,
                        ExpertActivations& experts) {
  const MethodOptions& method = pass.model->method();
  const int64_t c = pass.model->config().hidden_size, f = pass.model->config().intermediate_size;
  const int64_t e = method.num_experts, m = experts.rows;
  ArenaScope scope(*pass.scratch);
  const Ptr gathered = gather(pass, x, experts);
  grouped_linear_forward(pass.exec, experts.gate, gathered, layer.expert_gate.value, experts.offsets, e, m, f, c, 1.0f,
                         false);
  grouped_linear_forward(pass.exec, experts.up, gathered, layer.expert_up.value, experts.offsets, e, m, f, c, 1.0f,
                         false);
  swiglu_forward(pass.exec, experts.activated, experts.gate, experts.up, m * f);
  grouped_linear_forward(pass.exec, experts.output, experts.activated, layer.expert_down.value, experts.offsets, e, m,
                         c, f, 1.0f, false);
  moe_combine_forward(pass.exec, y, experts.output, experts.weights, experts.inverse, tokens.n, c, method.top_k, 1.0f);
}

void expert_ffn_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr dx, float* dweights,
                         ConstPtr dy, ConstPtr x, const ExpertActivations& experts) {
  const MethodOptions& method = pass.model->method();
  const int64_t c = pass.model->config().hidden_size, f = pass.model->config().intermediate_size;
  const int64_t n = tokens.n, e = method.num_experts, m = experts.rows, k = method.top_k;
  const auto backward_weight = [&](const Tensor& weight, ConstPtr dout, ConstPtr in, int64_t out_features,
                                   int64_t in_features) {
    add_gradient(pass, *weight.parameter, [&](Ptr dw) {
      grouped_linear_backward_weight(pass.exec, dw, dout, in, experts.offsets, e, m, out_features, in_features, 1.0f);
    });
  };
  ArenaScope scope(*pass.scratch);
  const Ptr doutput = pass.scratch->take(pass.activation, m * c);
  moe_combine_backward(pass.exec, doutput, dweights, dy, experts.output, experts.weights, experts.source,
                       experts.inverse, n, m, c, k, 1.0f);

  const Ptr dactivated = pass.scratch->take(pass.activation, m * f);
  grouped_linear_backward_input(pass.exec, dactivated, doutput, layer.expert_down.value, experts.offsets, e, m, c, f,
                                1.0f, false);
  backward_weight(layer.expert_down, doutput, experts.activated, c, f);

  const Ptr dgate = pass.scratch->take(pass.activation, m * f);
  const Ptr dup = pass.scratch->take(pass.activation, m * f);
  swiglu_backward(pass.exec, dgate, dup, dactivated, experts.gate, experts.up, m * f);
  const Ptr gathered = gather(pass, x, experts);
  backward_weight(layer.expert_gate, dgate, gathered, f, c);
  backward_weight(layer.expert_up, dup, gathered, f, c);

  const Ptr dgathered = doutput;  // its last reader was expert_down's gradient
  grouped_linear_backward_input(pass.exec, dgathered, dgate, layer.expert_gate.value, experts.offsets, e, m, f, c, 1.0f,
                                false);
  grouped_linear_backward_input(pass.exec, dgathered, dup, layer.expert_up.value, experts.offsets, e, m, f, c, 1.0f,
                                true);
  fill_zero(pass.exec, dx, n * c);
  moe_combine_forward(pass.exec, dx, dgathered, nullptr, experts.inverse, n, c, k, 1.0f);
}

}  // namespace caravan
