// One decoder layer, in pieces that read like its formula:
//
//   q, k, v = rope(norm_qk(W x')), x' = rmsnorm(x)         attention_inputs_forward
//   a       = attention(q, k, v)                           (training: attend_forward; decoding: against a cache)
//   m       = x + W_o a                                    attention_output_forward
//   y       = m + mlp(rmsnorm(m))                          mlp_forward
//
// Rounding when activations are bf16 (a CUDA twin must round at the same points): the output of every projection's GEMM
// is rounded once; with LoRA the sum of that and scale * B u is rounded again (widened: it alone is), u = A drop(x) being
// rounded too, while drop(x) is not: it is x or 0, and its factor multiplies the sum that becomes u. Every element-wise function rounds its
// result; the residual stream is the rounded sum of the rounded branch and the stream; the expert branch is added to
// m + f with one more rounding. Statistics of norms, the router, softmaxes and logits are f32. In f32 nothing is rounded
// in between.
#pragma once

#include <array>

#include "engine/model/device_buffer.h"
#include "engine/model/model.h"
#include "engine/model/pass_angles.h"

namespace caravan {

/// The tokens of one pass: conversations laid end to end. Device memory; views.
struct Tokens {
  int64_t n = 0;                          // N
  int64_t valid_tokens = 0;               // N less the padding rows
  const int32_t* ids = nullptr;           // (N)
  const int32_t* position = nullptr;      // (N) in its conversation
  const int32_t* conversation = nullptr;  // (N) index in the optimizer step's batch; null when nothing is dropped
  const uint8_t* valid = nullptr;         // (N) 0 for padding rows; null: none
  const int32_t* cu_seqlens = nullptr;    // (sequences + 1)
  int64_t sequences = 0;
};

/// What every piece of a pass is told beside its tensors.
struct Pass {
  Exec exec;
  const Model* model = nullptr;
  AnglesView angles;
  Arena* scratch = nullptr;
  DType activation = DType::f32;
  bool dropout = false;
  bool masks_are_drawn = false;  // they stand in the layer's activations from the pass before
  uint32_t seed = 0;
  uint32_t step = 0;   // optimizer step, from 1: key of dropout and of stochastic rounding
  uint32_t micro = 0;  // micro-batch of the step: counter of stochastic rounding
};

/// Routing and experts of one layer; M = valid tokens * K dispatched rows.
struct ExpertActivations {
  float* router_logits = nullptr;  // (N, E)
  int32_t* chosen = nullptr;       // (N, K) experts, best first
  float* weights = nullptr;        // (N, K)
  int32_t* offsets = nullptr;      // (E + 1)
  int32_t* source = nullptr;       // (M) assignment n * K + k of each dispatched row
  int32_t* inverse = nullptr;      // (N * K)
  uint32_t* kept = nullptr;        // pesc: (N, kept_words(C)) mask of the adapters' input; null without dropout
  int64_t rows = 0;                // M
  Ptr hidden;                      // pesc: (M, A) before GELU
  Ptr activated;                   // pesc: (M, A) after it; upcycle: (M, F) silu(gate) * up
  Ptr gate;                        // upcycle: (M, F)
  Ptr up;                          // upcycle: (M, F)
  Ptr output;                      // (M, C)
};

/// Everything the backward pass of a layer reads. Cut once per layer, or once in all with recomputation.
struct LayerActivations {
  Ptr input;                                     // (N, C) x, the residual stream
  Ptr normed_input;                              // (N, C; rows of input_row elements) x'
  float* input_rstd = nullptr;                   // (N)
  Ptr q_raw;                                     // (N, NH * D) before q/k norm; null without one
  Ptr k_raw;                                     // (N, NKV * D)
  float* q_rstd = nullptr;                       // (N * NH)
  float* k_rstd = nullptr;                       // (N * NKV)
  Ptr q;                                         // (N, NH * D) rotated
  Ptr k;                                         // (N, NKV * D) rotated
  Ptr v;                                         // (N, NKV * D)
  Ptr attended;                                  // (N, NH * D) a
  float* lse = nullptr;                          // (NH, N)
  Ptr middle;                                    // (N, C) m
  Ptr normed_middle;                             // (N, C; rows of middle_row elements)
  float* middle_rstd = nullptr;                  // (N)
  Ptr gate;                                      // (N, F); null where experts replace the FFN
  Ptr up;                                        // (N, F)
  Ptr activated;                                 // (N, F) silu(gate) * up
  Ptr ffn;                                       // (N, C) f = down_proj(activated)
  std::array<Ptr, num_projections> lora_hidden;  // (N, R) u, behind the input's own elements in its rows where widened
  int64_t input_row = 0;
  int64_t middle_row = 0;
  bool widened = false;
  bool keeps_outputs = false;  // what take_layer_outputs took outlasts the layer's own forward pass
  // (N, kept_words(in)) masks of the LoRA inputs; null without dropout.
  std::array<uint32_t*, num_projections> lora_kept = {};
  ExpertActivations experts;
};

/// Cuts all of it but `input` from `arena`. `widened`: what q, k, v and gate, up read stands in rows that go on with their
/// LoRA's u, so that x W^T + u B^T is one product; it takes effect where the widths allow it.
LayerActivations take_layer_activations(Arena& arena, const ModelConfig& config, const MethodOptions& method,
                                        DType activation, int64_t n, int64_t valid_tokens, bool widened = false);

/// Memory of its own in `acts`, which several layers share, for what costs most to compute again and takes little:
/// attended, lse, middle, ffn, the masks of dropout, and u of the projections whose output is kept.
void take_layer_outputs(LayerActivations& acts, Arena& arena, const ModelConfig& config, const MethodOptions& method,
                        DType activation, int64_t n);

/// acts.input -> acts.q, k, v.
void attention_inputs_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts);
/// acts.q, k, v -> acts.attended, lse: causal within each sequence of `tokens`.
void attend_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts);
/// acts.attended, input -> acts.middle.
void attention_output_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts);
/// acts.middle -> output (N, C), which must not be acts.middle. Fills acts.experts where the method has experts.
void mlp_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts, Ptr output);

/// The whole layer: acts.input -> output (N, C).
void layer_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts, Ptr output);
/// Once more, for the backward pass: all that `acts` does not keep. `output` (N, C) is anybody's afterwards.
void layer_forward_again(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts,
                         Ptr output);

/// What the balance loss leaves behind in one layer. Device memory.
struct BalanceState {
  float coefficient = 0.0f;              // alpha times the micro-batch's share of the step's valid tokens
  float* loss = nullptr;                 // (1) E * sum F_i P_i, unscaled
  int64_t* tokens_per_expert = nullptr;  // (E) assignments of valid tokens
  float* mean_probability = nullptr;     // (E) P
  float* gradient = nullptr;             // (E, C) += the balance term's own gradient in the router's weights
};

/// stream (N, C): gradient of the layer's output on entry, of its input on return. Adds to the gradients of every
/// parameter of the layer. `balance` may be null (no experts).
void layer_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, const LayerActivations& acts,
                    Ptr stream, const BalanceState* balance);

/// F, P and the balance loss from the router's logits of a forward pass.
void balance_forward(const Pass& pass, const Tokens& tokens, const ExpertActivations& experts,
                     const BalanceState& balance);

}  // namespace caravan
