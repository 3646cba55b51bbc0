#include "engine/model/experts.h"
#include "engine/model/layer.h"
#include "engine/model/projection.h"
#include "kernels/activation.h"
#include "kernels/norm.h"
#include "kernels/rope.h"

namespace caravan {

namespace {

float* norm_gradient(const Tensor& norm) {
  return norm.parameter == nullptr ? nullptr : norm.parameter->gradient.as<float>();
}

/// dnormed (N, C) = through the shared FFN; dweights (N, K) = where there are adapters. dy: gradient of the MLP's output.
void ffn_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, const LayerActivations& acts, Ptr dnormed,
                  float* dweights, Ptr dy) {
  const ModelConfig& config = pass.model->config();
  const int64_t n = tokens.n, c = config.hidden_size, f = config.intermediate_size;
  ArenaScope scope(*pass.scratch);
  Ptr dffn = dy;
  if (pass.model->method().has_adapters()) {
    const Ptr sum = pass.scratch->take(pass.activation, n * c);
    adapters_backward(pass, layer, tokens, sum, dweights, dy, acts.ffn, acts.experts);
    dffn = sum;
  }
  const Ptr dactivated = pass.scratch->take(pass.activation, n * f);
  const Ptr dgate = pass.scratch->take(pass.activation, n * f);
  const Ptr dup = pass.scratch->take(pass.activation, n * f);
  project_backward(pass, layer, tokens, acts, {{Proj::down, dffn}}, dactivated, false, acts.activated, f);
  swiglu_backward(pass.exec, dgate, dup, dactivated, acts.gate, acts.up, n * f);
  project_backward(pass, layer, tokens, acts, {{Proj::gate, dgate}, {Proj::up, dup}}, dnormed, false,
                   acts.normed_middle, acts.middle_row);
}

/// stream: gradient of y on entry, of m on return.
void mlp_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, const LayerActivations& acts, Ptr stream,
                  const BalanceState* balance) {
  const MethodOptions& method = pass.model->method();
  const int64_t n = tokens.n, c = pass.model->config().hidden_size;
  ArenaScope scope(*pass.scratch);
  const Ptr dnormed = pass.scratch->take(pass.activation, n * c);
  float* dweights = method.has_experts() ? pass.scratch->take<float>(n * method.top_k) : nullptr;
  if (method.method == Method::upcycle) {
    expert_ffn_backward(pass, layer, tokens, dnormed, dweights, stream, acts.normed_middle, acts.experts);
  } else {
    ffn_backward(pass, layer, tokens, acts, dnormed, dweights, stream);
  }
  if (method.has_experts()) {
    route_backward(pass, layer, tokens, dnormed, acts.normed_middle, acts.middle_row, dweights, acts.experts, *balance);
  }
  rmsnorm_backward(pass.exec, stream, norm_gradient(layer.post_norm), dnormed, acts.middle, acts.middle_rstd,
                   layer.post_norm.value, n, c, true);
}

/// dx (N, heads * D) before q/k norm and rotation, in place where there is no such norm.
Ptr unrotate(const Pass& pass, const Layer& layer, const Tokens& tokens, Ptr d_rotated, ConstPtr raw, const float* rstd,
             const Tensor& norm, int64_t heads) {
  const int64_t n = tokens.n, d = pass.model->config().head_dim;
  if (layer.rotates) {
    rope_apply(pass.exec, d_rotated, pass.angles.cos, pass.angles.sin, pass.angles.row, n, heads, d, true);
  }
  if (!norm.value) return d_rotated;
  const Ptr d_raw = pass.scratch->take(pass.activation, n * heads * d);
  rmsnorm_backward(pass.exec, d_raw, norm_gradient(norm), d_rotated, raw, rstd, norm.value, n * heads, d, false);
  return d_raw;
}

/// stream: gradient of m on entry, of x on return.
void attention_block_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, const LayerActivations& acts,
                              Ptr stream) {
  const ModelConfig& config = pass.model->config();
  const int64_t n = tokens.n, c = config.hidden_size, q = config.q_size(), kv = config.kv_size();
  ArenaScope scope(*pass.scratch);
  const Ptr dattended = pass.scratch->take(pass.activation, n * q);
  const Ptr dq = pass.scratch->take(pass.activation, n * q);
  const Ptr dk = pass.scratch->take(pass.activation, n * kv);
  const Ptr dv = pass.scratch->take(pass.activation, n * kv);
  const Ptr dnormed = pass.scratch->take(pass.activation, n * c);
  project_backward(pass, layer, tokens, acts, {{Proj::o, stream}}, dattended, false, acts.attended, q);
  attention_backward(pass.exec, dq, dk, dv, dattended, acts.q, acts.k, acts.v, acts.attended, acts.lse,
                     tokens.cu_seqlens, tokens.sequences, n, layer.attention);
  const Ptr dq_raw = unrotate(pass, layer, tokens, dq, acts.q_raw, acts.q_rstd, layer.q_norm, config.num_heads);
  const Ptr dk_raw = unrotate(pass, layer, tokens, dk, acts.k_raw, acts.k_rstd, layer.k_norm, config.num_kv_heads);
  project_backward(pass, layer, tokens, acts, {{Proj::q, dq_raw}, {Proj::k, dk_raw}, {Proj::v, dv}}, dnormed, false,
                   acts.normed_input, acts.input_row);
  rmsnorm_backward(pass.exec, stream, norm_gradient(layer.input_norm), dnormed, acts.input, acts.input_rstd,
                   layer.input_norm.value, n, c, true);
}

}  // namespace

void layer_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, const LayerActivations& acts,
                    Ptr stream, const BalanceState* balance) {
  mlp_backward(pass, layer, tokens, acts, stream, balance);
  attention_block_backward(pass, layer, tokens, acts, stream);
}

}  // namespace caravan
