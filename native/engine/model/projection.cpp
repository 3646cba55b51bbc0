#include "engine/model/projection.h"

#include "engine/model/gradient.h"
#include "kernels/matmul.h"

namespace caravan {

DropoutMask dropout_mask(const Pass& pass, const Layer& layer, const Tokens& tokens, DropoutSite site) {
  const MethodOptions& method = pass.model->method();
  DropoutMask mask;
  if (pass.dropout) mask.p = site == DropoutSite::adapter ? method.adapter_dropout : method.lora_dropout;
  mask.seed = pass.seed;
  mask.step = pass.step;
  mask.layer = static_cast<uint32_t>(layer.index);
  mask.site = site;
  mask.conversation = tokens.conversation;
  mask.position = tokens.position;
  return mask;
}

namespace {

/// drop(x) (N, in): x itself where nothing is dropped, else in scratch.
ConstPtr lora_input(const Pass& pass, const Projection& projection, const Tokens& tokens, const DropoutMask& mask,
                    ConstPtr x) {
  if (mask.p == 0.0f) return x;
  const Ptr dropped = pass.scratch->take(pass.activation, tokens.n * projection.in_features());
  dropout_apply(pass.exec, dropped, x, mask, tokens.n, projection.in_features(), false);
  return dropped;
}

DropoutSite site_of(const Projection& projection) { return static_cast<DropoutSite>(projection.which); }

Weight lora_weight(const Tensor& tensor, int64_t rows, int64_t cols) { return Weight::of(tensor.value, rows, cols); }

}  // namespace

void project_forward(const Pass& pass, const Layer& layer, const Projection& projection, const Tokens& tokens, Ptr y,
                     ConstPtr x, Ptr u) {
  const int64_t n = tokens.n, r = projection.rank;
  linear_forward(pass.exec, y, x, projection.weight, projection.bias, n, 1.0f, false);
  if (!projection.has_lora()) return;

  ArenaScope scope(*pass.scratch);
  const DropoutMask mask = dropout_mask(pass, layer, tokens, site_of(projection));
  const ConstPtr dropped = lora_input(pass, projection, tokens, mask, x);
  const Weight a = lora_weight(projection.lora_a, r, projection.in_features());
  const Weight b = lora_weight(projection.lora_b, projection.out_features(), r);
  linear_forward(pass.exec, u, dropped, a, nullptr, n, 1.0f, false);
  linear_forward(pass.exec, y, u, b, nullptr, n, projection.lora_scale, true);
}

void project_backward(const Pass& pass, const Layer& layer, const Projection& projection, const Tokens& tokens, Ptr dx,
                      bool accumulate, ConstPtr dy, ConstPtr x, ConstPtr u) {
  const int64_t n = tokens.n, r = projection.rank;
  const int64_t out = projection.out_features(), in = projection.in_features();
  const float scale = projection.lora_scale;
  linear_backward_input(pass.exec, dx, dy, projection.weight, n, 1.0f, accumulate);
  if (projection.weight_parameter != nullptr) {
    add_gradient(pass, *projection.weight_parameter,
                 [&](Ptr dw) { linear_backward_weight(pass.exec, dw, dy, x, n, out, in, 1.0f); });
  }
  if (projection.bias_parameter != nullptr) {
    bias_backward(pass.exec, projection.bias_parameter->gradient.as<float>(), dy, n, out);
  }
  if (!projection.has_lora()) return;

  ArenaScope scope(*pass.scratch);
  const DropoutMask mask = dropout_mask(pass, layer, tokens, site_of(projection));
  const ConstPtr dropped = lora_input(pass, projection, tokens, mask, x);
  const Weight a = lora_weight(projection.lora_a, r, in);
  const Weight b = lora_weight(projection.lora_b, out, r);
  const Ptr du = pass.scratch->take(pass.activation, n * r);
  linear_backward_input(pass.exec, du, dy, b, n, scale, false);  // du = scale * dy B
  add_gradient(pass, *projection.lora_b.parameter,
               [&](Ptr db) { linear_backward_weight(pass.exec, db, dy, u, n, out, r, scale); });
  add_gradient(pass, *projection.lora_a.parameter,
               [&](Ptr da) { linear_backward_weight(pass.exec, da, du, dropped, n, r, in, 1.0f); });
  if (mask.p == 0.0f) {
    linear_backward_input(pass.exec, dx, du, a, n, 1.0f, true);
    return;
  }
  const Ptr ddropped = pass.scratch->take(pass.activation, n * in);
  linear_backward_input(pass.exec, ddropped, du, a, n, 1.0f, false);
  dropout_apply(pass.exec, dx, ddropped, mask, n, in, true);
}

}  // namespace caravan
