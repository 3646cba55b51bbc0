#include "engine/model/projection.h"

#include "engine/model/gradient.h"
#include "kernels/lora.h"
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

/// LoRA of the projections that are called together.
struct LoraCalls {
  std::array<LoraPart, max_lora_parts> parts;
  std::array<Parameter*, max_lora_parts> a_parameters = {};
  int count = 0;
  int64_t rank = 0;
  float kept_scale = 1.0f;  // what dropout multiplies by
  float scale = 0.0f;       // alpha / R
};

LoraCalls lora_calls(const Pass& pass, const Layer& layer, const LayerActivations& acts,
                     std::initializer_list<ProjectionCall> calls, int64_t in, int64_t x_row) {
  const float p = pass.dropout ? pass.model->method().lora_dropout : 0.0f;
  LoraCalls lora;
  for (const ProjectionCall& call : calls) {
    const Projection& projection = layer.projection(call.proj);
    if (!projection.has_lora()) continue;
    const size_t which = static_cast<size_t>(call.proj);
    LoraPart& part = lora.parts[static_cast<size_t>(lora.count)];
    part.a = projection.lora_a.value;
    part.kept = p > 0.0f ? acts.lora_kept[which] : nullptr;
    part.u = acts.lora_hidden[which];
    part.u_row = x_row > in ? x_row : projection.rank;
    lora.a_parameters[static_cast<size_t>(lora.count)] = projection.lora_a.parameter;
    lora.rank = projection.rank;
    lora.kept_scale = 1.0f / (1.0f - p);
    lora.scale = projection.lora_scale;
    ++lora.count;
  }
  return lora;
}

int64_t input_width(const Layer& layer, std::initializer_list<ProjectionCall> calls) {
  return layer.projection(calls.begin()->proj).in_features();
}

Weight weight_b(const Projection& projection) {
  return Weight::of(projection.lora_b.value, projection.out_features(), projection.rank);
}

/// Calls add() when every part from `first` on has an f32 sum to add to in `da`.
template <typename Add>
void add_gradients_of_a(const Pass& pass, LoraCalls& lora, int first, const Add& add) {
  if (first == lora.count) return add();
  const size_t i = static_cast<size_t>(first);
  add_gradient(pass, *lora.a_parameters[i], [&](Ptr sum) {
    lora.parts[i].da = sum.as<float>();
    add_gradients_of_a(pass, lora, first + 1, add);
  });
}

/// What a forward pass leaves in `acts` beside its outputs: the masks and u.
void project_narrow(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts,
                    std::initializer_list<ProjectionCall> calls, ConstPtr x, int64_t x_row) {
  const int64_t n = tokens.n, in = input_width(layer, calls);
  const LoraCalls lora = lora_calls(pass, layer, acts, calls, in, x_row);
  if (lora.count == 0) return;
  ArenaScope scope(*pass.scratch);
  for (const ProjectionCall& call : calls) {
    const DropoutMask mask = dropout_mask(pass, layer, tokens, static_cast<DropoutSite>(call.proj));
    if (mask.p == 0.0f || pass.masks_are_drawn) continue;
    dropout_kept(pass.exec, acts.lora_kept[static_cast<size_t>(call.proj)], mask, n, in);
  }
  const Ptr scratch = pass.scratch->take(pass.activation, n * in);
  lora_down_forward(pass.exec, lora.parts.data(), lora.count, x, x_row, scratch, n, in, lora.rank, lora.kept_scale);
}

}  // namespace

void project_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts,
                     std::initializer_list<ProjectionCall> calls, ConstPtr x, int64_t x_row) {
  const int64_t n = tokens.n, in = input_width(layer, calls);
  project_narrow(pass, layer, tokens, acts, calls, x, x_row);
  int64_t u_at = in;
  for (const ProjectionCall& call : calls) {
    const Projection& projection = layer.projection(call.proj);
    if (x_row > in) {
      linear_lora_forward(pass.exec, call.y, x, x_row, projection.weight, projection.bias, projection.lora_b.value,
                          projection.lora_scale, u_at, projection.rank, n);
      u_at += projection.rank;
      continue;
    }
    linear_forward(pass.exec, call.y, x, projection.weight, projection.bias, n, 1.0f, false);
    if (!projection.has_lora()) continue;
    linear_forward(pass.exec, call.y, acts.lora_hidden[static_cast<size_t>(call.proj)], weight_b(projection), nullptr,
                   n, projection.lora_scale, true);
  }
}

void project_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, const LayerActivations& acts,
                      std::initializer_list<ProjectionCall> calls, Ptr dx, bool accumulate, ConstPtr x, int64_t x_row) {
  const int64_t n = tokens.n, in = input_width(layer, calls);
  for (const ProjectionCall& call : calls) {
    const Projection& projection = layer.projection(call.proj);
    const int64_t out = projection.out_features();
    linear_backward_input(pass.exec, dx, call.y, projection.weight, n, 1.0f, accumulate);
    accumulate = true;
    if (projection.weight_parameter != nullptr) {
      add_gradient(pass, *projection.weight_parameter,
                   [&](Ptr dw) { linear_backward_weight(pass.exec, dw, call.y, x, n, out, in, 1.0f, x_row); });
    }
    if (projection.bias_parameter != nullptr) {
      bias_backward(pass.exec, projection.bias_parameter->gradient.as<float>(), call.y, n, out);
    }
  }
  LoraCalls lora = lora_calls(pass, layer, acts, calls, in, x_row);
  if (lora.count == 0) return;

  ArenaScope scope(*pass.scratch);
  int part = 0;
  for (const ProjectionCall& call : calls) {
    const Projection& projection = layer.projection(call.proj);
    const ConstPtr u = acts.lora_hidden[static_cast<size_t>(call.proj)];
    const Ptr du = pass.scratch->take(pass.activation, n * lora.rank);
    linear_backward_input(pass.exec, du, call.y, weight_b(projection), n, lora.scale * lora.kept_scale, false);
    add_gradient(pass, *projection.lora_b.parameter, [&](Ptr db) {
      linear_backward_weight(pass.exec, db, call.y, u, n, projection.out_features(), lora.rank, lora.scale,
                             lora.parts[static_cast<size_t>(part)].u_row);
    });
    lora.parts[static_cast<size_t>(part)].u = du;
    lora.parts[static_cast<size_t>(part)].u_row = lora.rank;
    ++part;
  }
  const Ptr scratch = pass.scratch->take(pass.activation, n * in);
  add_gradients_of_a(pass, lora, 0, [&] {
    lora_down_backward_weight(pass.exec, lora.parts.data(), lora.count, x, x_row, scratch, n, in, lora.rank);
  });
  lora_down_backward_input(pass.exec, lora.parts.data(), lora.count, dx, scratch, n, in, lora.rank);
}

}  // namespace caravan
