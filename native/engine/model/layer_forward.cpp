#include <cmath>

#include "engine/model/experts.h"
#include "engine/model/layer.h"
#include "engine/model/projection.h"
#include "kernels/activation.h"
#include "kernels/dropout.h"
#include "kernels/norm.h"
#include "kernels/rope.h"

namespace caravan {

namespace {

ExpertActivations take_expert_activations(Arena& arena, const ModelConfig& config, const MethodOptions& method,
                                          DType activation, int64_t n, int64_t valid_tokens) {
  ExpertActivations experts;
  const int64_t e = method.num_experts, k = method.top_k, m = valid_tokens * k;
  experts.rows = m;
  experts.router_logits = arena.take<float>(n * e);
  experts.chosen = arena.take<int32_t>(n * k);
  experts.weights = arena.take<float>(n * k);
  experts.offsets = arena.take<int32_t>(e + 1);
  experts.source = arena.take<int32_t>(n * k);
  experts.inverse = arena.take<int32_t>(n * k);
  if (method.has_adapters()) {
    experts.hidden = arena.take(activation, m * method.adapter_dim);
    experts.activated = arena.take(activation, m * method.adapter_dim);
  } else {
    experts.gate = arena.take(activation, m * config.intermediate_size);
    experts.up = arena.take(activation, m * config.intermediate_size);
    experts.activated = arena.take(activation, m * config.intermediate_size);
  }
  experts.output = arena.take(activation, m * config.hidden_size);
  return experts;
}

bool is_power_of_two(float value) {
  int exponent = 0;
  return std::frexp(value, &exponent) == 0.5f;
}

/// Where the rows of normed_input go on with u of q, k, v, and those of normed_middle with u of gate, up.
bool is_beside_input(Proj proj) { return proj != Proj::o && proj != Proj::down; }

Ptr place_beside_input(const LayerActivations& acts, Proj proj, int64_t c, int64_t r) {
  const bool of_middle = proj == Proj::gate || proj == Proj::up;
  const int64_t index = static_cast<int64_t>(proj) - static_cast<int64_t>(of_middle ? Proj::gate : Proj::q);
  return (of_middle ? acts.normed_middle : acts.normed_input).at(c + index * r);
}

}  // namespace

namespace {

/// Of every site at which the method drops.
void take_masks(LayerActivations& acts, Arena& arena, const ModelConfig& config, const MethodOptions& method,
                int64_t n) {
  if (method.has_lora() && method.lora_dropout > 0.0f) {
    for (const Proj proj : all_projections) {
      acts.lora_kept[static_cast<size_t>(proj)] = arena.take<uint32_t>(n * kept_words(projection_cols(config, proj)));
    }
  }
  if (method.has_adapters() && method.adapter_dropout > 0.0f) {
    acts.experts.kept = arena.take<uint32_t>(n * kept_words(config.hidden_size));
  }
}

}  // namespace

LayerActivations take_layer_activations(Arena& arena, const ModelConfig& config, const MethodOptions& method,
                                        DType activation, int64_t n, int64_t valid_tokens, bool widened) {
  const int64_t c = config.hidden_size, f = config.intermediate_size;
  const int64_t q = config.q_size(), kv = config.kv_size(), r = method.lora_rank;
  LayerActivations acts;
  // Rows of 16-byte pieces, as the kernels that know of wider rows want them, and a scale that costs no rounding.
  acts.widened = widened && method.has_lora() && activation == DType::bf16 && c % 8 == 0 && r % 8 == 0 &&
                 is_power_of_two(method.lora_alpha / static_cast<float>(r));
  acts.input_row = acts.widened ? c + 3 * r : c;
  acts.middle_row = acts.widened ? c + 2 * r : c;
  acts.normed_input = arena.take(activation, n * acts.input_row);
  acts.input_rstd = arena.take<float>(n);
  if (config.qk_norm) {
    acts.q_raw = arena.take(activation, n * q);
    acts.k_raw = arena.take(activation, n * kv);
    acts.q_rstd = arena.take<float>(n * config.num_heads);
    acts.k_rstd = arena.take<float>(n * config.num_kv_heads);
  }
  acts.q = arena.take(activation, n * q);
  acts.k = arena.take(activation, n * kv);
  acts.v = arena.take(activation, n * kv);
  acts.attended = arena.take(activation, n * q);
  acts.lse = arena.take<float>(config.num_heads * n);
  acts.middle = arena.take(activation, n * c);
  acts.normed_middle = arena.take(activation, n * acts.middle_row);
  acts.middle_rstd = arena.take<float>(n);
  if (method.method != Method::upcycle) {
    acts.gate = arena.take(activation, n * f);
    acts.up = arena.take(activation, n * f);
    acts.activated = arena.take(activation, n * f);
    acts.ffn = arena.take(activation, n * c);
  }
  if (method.has_lora()) {
    for (const Proj proj : all_projections) {
      const size_t which = static_cast<size_t>(proj);
      acts.lora_hidden[which] =
          acts.widened && is_beside_input(proj) ? place_beside_input(acts, proj, c, r) : arena.take(activation, n * r);
    }
  }
  if (method.has_experts()) {
    acts.experts = take_expert_activations(arena, config, method, activation, n, valid_tokens);
  }
  take_masks(acts, arena, config, method, n);
  return acts;
}

void take_layer_outputs(LayerActivations& acts, Arena& arena, const ModelConfig& config, const MethodOptions& method,
                        DType activation, int64_t n) {
  acts.keeps_outputs = true;
  acts.attended = arena.take(activation, n * config.q_size());
  acts.lse = arena.take<float>(config.num_heads * n);
  acts.middle = arena.take(activation, n * config.hidden_size);
  if (method.method != Method::upcycle) acts.ffn = arena.take(activation, n * config.hidden_size);
  if (method.has_lora()) {
    for (const Proj proj : {Proj::o, Proj::down}) {
      acts.lora_hidden[static_cast<size_t>(proj)] = arena.take(activation, n * method.lora_rank);
    }
  }
  take_masks(acts, arena, config, method, n);
}

void attention_inputs_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts) {
  const ModelConfig& config = pass.model->config();
  const int64_t n = tokens.n, heads = config.num_heads, kv_heads = config.num_kv_heads, d = config.head_dim;
  rmsnorm_forward(pass.exec, acts.normed_input, acts.input_rstd, acts.input, layer.input_norm.value, n,
                  config.hidden_size, config.norm_eps, acts.input_row);
  project_forward(pass, layer, tokens, acts,
                  {{Proj::q, config.qk_norm ? acts.q_raw : acts.q},
                   {Proj::k, config.qk_norm ? acts.k_raw : acts.k},
                   {Proj::v, acts.v}},
                  acts.normed_input, acts.input_row);
  if (config.qk_norm) {
    rmsnorm_forward(pass.exec, acts.q, acts.q_rstd, acts.q_raw, layer.q_norm.value, n * heads, d, config.norm_eps);
    rmsnorm_forward(pass.exec, acts.k, acts.k_rstd, acts.k_raw, layer.k_norm.value, n * kv_heads, d, config.norm_eps);
  }
  if (!layer.rotates) return;
  rope_apply(pass.exec, acts.q, pass.angles.cos, pass.angles.sin, pass.angles.row, n, heads, d, false);
  rope_apply(pass.exec, acts.k, pass.angles.cos, pass.angles.sin, pass.angles.row, n, kv_heads, d, false);
}

void attend_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts) {
  attention_forward(pass.exec, acts.attended, acts.lse, acts.q, acts.k, acts.v, tokens.cu_seqlens, tokens.sequences,
                    tokens.n, layer.attention);
}

void attention_output_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts) {
  const ModelConfig& config = pass.model->config();
  const int64_t count = tokens.n * config.hidden_size;
  project_forward(pass, layer, tokens, acts, {{Proj::o, acts.middle}}, acts.attended, config.q_size());
  add_inplace(pass.exec, acts.middle, acts.input, count);
}

namespace {

/// acts.middle -> what the experts are chosen by, and acts.activated.
void mlp_inner_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts) {
  const ModelConfig& config = pass.model->config();
  const MethodOptions& method = pass.model->method();
  const int64_t n = tokens.n, f = config.intermediate_size;
  rmsnorm_forward(pass.exec, acts.normed_middle, acts.middle_rstd, acts.middle, layer.post_norm.value, n,
                  config.hidden_size, config.norm_eps, acts.middle_row);
  if (method.has_experts()) route_forward(pass, layer, tokens, acts.normed_middle, acts.middle_row, acts.experts);
  if (method.method == Method::upcycle) return;
  project_forward(pass, layer, tokens, acts, {{Proj::gate, acts.gate}, {Proj::up, acts.up}}, acts.normed_middle,
                  acts.middle_row);
  swiglu_forward(pass.exec, acts.activated, acts.gate, acts.up, n * f);
}

}  // namespace

void mlp_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts, Ptr output) {
  const ModelConfig& config = pass.model->config();
  const MethodOptions& method = pass.model->method();
  const int64_t count = tokens.n * config.hidden_size;
  mlp_inner_forward(pass, layer, tokens, acts);
  if (method.method == Method::upcycle) {
    convert(pass.exec, output, acts.middle, count);
    expert_ffn_forward(pass, layer, tokens, output, acts.normed_middle, acts.experts);
    return;
  }
  project_forward(pass, layer, tokens, acts, {{Proj::down, acts.ffn}}, acts.activated, config.intermediate_size);
  if (method.has_adapters()) {
    adapters_forward(pass, layer, tokens, output, acts.middle, acts.ffn, acts.experts);
    return;
  }
  convert(pass.exec, output, acts.middle, count);
  add_inplace(pass.exec, output, acts.ffn, count);
}

void layer_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts, Ptr output) {
  attention_inputs_forward(pass, layer, tokens, acts);
  attend_forward(pass, layer, tokens, acts);
  attention_output_forward(pass, layer, tokens, acts);
  mlp_forward(pass, layer, tokens, acts, output);
}

void layer_forward_again(const Pass& first, const Layer& layer, const Tokens& tokens, LayerActivations& acts,
                         Ptr output) {
  if (!acts.keeps_outputs) return layer_forward(first, layer, tokens, acts, output);
  Pass pass = first;
  pass.masks_are_drawn = true;
  attention_inputs_forward(pass, layer, tokens, acts);
  if (pass.model->method().method == Method::upcycle) return mlp_forward(pass, layer, tokens, acts, output);
  mlp_inner_forward(pass, layer, tokens, acts);
  if (pass.model->method().has_adapters()) adapters_apart(pass, layer, tokens, acts.ffn, acts.experts);
}

}  // namespace caravan
