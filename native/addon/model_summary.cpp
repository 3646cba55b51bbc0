#include "addon/model_summary.h"

#include <algorithm>

#include "addon/values.h"

namespace caravan::addon {

Napi::Value summary_to_js(Napi::Env env, const ModelSummary& summary) {
  const ModelConfig& config = summary.config;
  const Napi::Object result = Napi::Object::New(env);
  result.Set("architecture", config.architecture);
  result.Set("family", config.family);
  result.Set("hiddenSize", number(env, config.hidden_size));
  result.Set("intermediateSize", number(env, config.intermediate_size));
  result.Set("numLayers", number(env, config.num_layers));
  result.Set("numHeads", number(env, config.num_heads));
  result.Set("numKvHeads", number(env, config.num_kv_heads));
  result.Set("headDim", number(env, config.head_dim));
  result.Set("vocabSize", number(env, config.vocab_size));
  result.Set("maxPositions", number(env, config.max_positions));
  result.Set("ropeTheta", number(env, config.rope_theta));
  const std::string scaling = describe_rope_scaling(config.rope);
  result.Set("ropeScaling", scaling.empty() ? env.Null() : text(env, scaling));
  const auto widest = std::max_element(config.windows.begin(), config.windows.end());
  const bool windowed = widest != config.windows.end() && *widest > 0;
  result.Set("slidingWindow", windowed ? number(env, *widest) : env.Null());
  result.Set("tiedEmbeddings", config.tied_embeddings);
  result.Set("attentionBias", config.qkv_bias);
  result.Set("mlpBias", config.mlp_bias);
  result.Set("qkNorm", config.qk_norm);
  result.Set("normEps", number(env, double{config.norm_eps}));
  const Napi::Object parameters = Napi::Object::New(env);
  parameters.Set("embedding", number(env, summary.parameters.embedding));
  parameters.Set("attention", number(env, summary.parameters.attention));
  parameters.Set("mlp", number(env, summary.parameters.mlp));
  parameters.Set("norms", number(env, summary.parameters.norms));
  parameters.Set("head", number(env, summary.parameters.head));
  parameters.Set("total", number(env, summary.parameters.total));
  result.Set("parameters", parameters);
  if (config.experts.any()) {
    const Napi::Object experts = Napi::Object::New(env);
    experts.Set("count", number(env, config.experts.num_experts));
    experts.Set("topK", number(env, config.experts.top_k));
    experts.Set("adapterDim", config.experts.adapter_dim > 0 ? number(env, config.experts.adapter_dim) : env.Null());
    experts.Set("adapterScale", number(env, double{config.experts.adapter_scale}));
    experts.Set("parameters", number(env, summary.parameters.experts));
    result.Set("experts", experts);
  }
  result.Set("storedDtypes",
             array_of(env, summary.stored_types, [](Napi::Env e, const std::string& type) { return text(e, type); }));
  result.Set("fileBytes", number(env, static_cast<int64_t>(summary.file_bytes)));
  return result;
}

}  // namespace caravan::addon
