#include "engine/model/experts.h"
#include "engine/model/layer.h"
#include "engine/model/projection.h"
#include "kernels/activation.h"
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

}  // namespace

LayerActivations take_layer_activations(Arena& arena, const ModelConfig& config, const MethodOptions& method,
                                        DType activation, int64_t n, int64_t valid_tokens) {
  const int64_t c = config.hidden_size, f = config.intermediate_size;
  const int64_t q = config.q_size(), kv = config.kv_size();
  LayerActivations acts;
  acts.normed_input = arena.take(activation, n * c);
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
  acts.normed_middle = arena.take(activation, n * c);
  acts.middle_rstd = arena.take<float>(n);
  if (method.method != Method::upcycle) {
    acts.gate = arena.take(activation, n * f);
    acts.up = arena.take(activation, n * f);
    acts.activated = arena.take(activation, n * f);
    acts.ffn = arena.take(activation, n * c);
  }
  if (method.has_lora()) {
    for (Ptr& u : acts.lora_hidden) u = arena.take(activation, n * method.lora_rank);
  }
  if (method.has_experts()) {
    acts.experts = take_expert_activations(arena, config, method, activation, n, valid_tokens);
  }
  return acts;
}

namespace {

/// y = W x + b (+ LoRA) for one of the layer's projections.
void project(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts, Proj proj, Ptr y,
             ConstPtr x) {
  project_forward(pass, layer, layer.projection(proj), tokens, y, x, acts.lora_hidden[static_cast<size_t>(proj)]);
}

}  // namespace

void attention_inputs_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts) {
  const ModelConfig& config = pass.model->config();
  const int64_t n = tokens.n, heads = config.num_heads, kv_heads = config.num_kv_heads, d = config.head_dim;
  rmsnorm_forward(pass.exec, acts.normed_input, acts.input_rstd, acts.input, layer.input_norm.value, n,
                  config.hidden_size, config.norm_eps);
  project(pass, layer, tokens, acts, Proj::q, config.qk_norm ? acts.q_raw : acts.q, acts.normed_input);
  project(pass, layer, tokens, acts, Proj::k, config.qk_norm ? acts.k_raw : acts.k, acts.normed_input);
  project(pass, layer, tokens, acts, Proj::v, acts.v, acts.normed_input);
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
  const int64_t count = tokens.n * pass.model->config().hidden_size;
  project(pass, layer, tokens, acts, Proj::o, acts.middle, acts.attended);
  add_inplace(pass.exec, acts.middle, acts.input, count);
}

void mlp_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts, Ptr output) {
  const ModelConfig& config = pass.model->config();
  const MethodOptions& method = pass.model->method();
  const int64_t n = tokens.n, c = config.hidden_size;
  rmsnorm_forward(pass.exec, acts.normed_middle, acts.middle_rstd, acts.middle, layer.post_norm.value, n, c,
                  config.norm_eps);
  convert(pass.exec, output, acts.middle, n * c);
  if (method.has_experts()) route_forward(pass, layer, tokens, acts.normed_middle, acts.experts);
  if (method.method == Method::upcycle) {
    expert_ffn_forward(pass, layer, tokens, output, acts.normed_middle, acts.experts);
    return;
  }
  project(pass, layer, tokens, acts, Proj::gate, acts.gate, acts.normed_middle);
  project(pass, layer, tokens, acts, Proj::up, acts.up, acts.normed_middle);
  swiglu_forward(pass.exec, acts.activated, acts.gate, acts.up, n * config.intermediate_size);
  project(pass, layer, tokens, acts, Proj::down, acts.ffn, acts.activated);
  add_inplace(pass.exec, output, acts.ffn, n * c);
  if (method.has_adapters()) adapters_forward(pass, layer, tokens, output, acts.ffn, acts.experts);
}

void layer_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts, Ptr output) {
  attention_inputs_forward(pass, layer, tokens, acts);
  attend_forward(pass, layer, tokens, acts);
  attention_output_forward(pass, layer, tokens, acts);
  mlp_forward(pass, layer, tokens, acts, output);
}

}  // namespace caravan
