#include "engine/model/model.h"

#include <algorithm>
#include <cmath>

#include "engine/platform/error.h"

namespace caravan {

Model::Model(const Exec& exec, const ModelConfig& config, std::shared_ptr<const BaseModel> base,
             std::shared_ptr<TrainableSet> set, int64_t positions)
    : device_(exec.device), config_(config), base_(std::move(base)), set_(std::move(set)), positions_(positions) {
  if (set_) method_ = set_->method();
  if (method_.trains_everything()) base_.reset();
  if (!base_ && !method_.trains_everything()) {
    throw EngineError("internal", "a model whose base is frozen was made without its base");
  }
  const bool stretches = config_.rope.kind == RopeKind::dynamic;
  rope_ = make_rope_table(exec, config_, stretches ? std::min(positions, config_.max_positions) : positions);

  const bool whole = base_ == nullptr;
  embedding_ = whole ? trained("model.embed_tokens.weight") : Tensor{base_->embedding.weight().dense, nullptr};
  final_norm_ = tensor("model.norm.weight", whole ? nullptr : &base_->final_norm);
  if (config_.tied_embeddings) {
    head_ = Weight::of(embedding_.value, config_.vocab_size, config_.hidden_size);
    head_parameter_ = embedding_.parameter;
  } else if (whole) {
    const Tensor head = trained("lm_head.weight");
    head_ = Weight::of(head.value, config_.vocab_size, config_.hidden_size);
    head_parameter_ = head.parameter;
  } else {
    head_ = base_->head.weight();
  }
  layers_.reserve(static_cast<size_t>(config_.num_layers));
  for (int64_t i = 0; i < config_.num_layers; ++i) add_layer(i);
}

Tensor Model::trained(const std::string& name) const {
  Parameter* parameter = set_ ? set_->find(name) : nullptr;
  if (parameter == nullptr) return {};
  return {parameter->copy ? parameter->copy : parameter->value, parameter};
}

/// The trained one where the method trains it, else the stored one; null where the model has none.
Tensor Model::tensor(const std::string& name, const DeviceBuffer* stored) const {
  if (Tensor found = trained(name); found.parameter != nullptr) return found;
  if (stored == nullptr || !*stored) return {};
  return {ConstPtr(stored->as<const float>()), nullptr};
}

void Model::add_layer(int64_t index) {
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  const BaseLayer* stored = base_ ? &base_->layers[static_cast<size_t>(index)] : nullptr;
  Layer layer;
  layer.index = index;
  layer.rotates = config_.no_rope.empty() || config_.no_rope[static_cast<size_t>(index)] == 0;
  layer.input_norm = tensor(prefix + "input_layernorm.weight", stored ? &stored->input_norm : nullptr);
  layer.post_norm = tensor(prefix + "post_attention_layernorm.weight", stored ? &stored->post_norm : nullptr);
  layer.q_norm = tensor(prefix + "self_attn.q_norm.weight", stored ? &stored->q_norm : nullptr);
  layer.k_norm = tensor(prefix + "self_attn.k_norm.weight", stored ? &stored->k_norm : nullptr);
  for (const Proj proj : all_projections) {
    layer.projections[static_cast<size_t>(proj)] = make_projection(index, proj);
  }
  layer.attention = {config_.num_heads, config_.num_kv_heads, config_.head_dim,
                     config_.windows[static_cast<size_t>(index)],
                     1.0f / std::sqrt(static_cast<float>(config_.head_dim))};
  layer.router = trained(prefix + "mlp.router");
  layer.adapter_down = trained(prefix + "mlp.adapter_down");
  layer.adapter_up = trained(prefix + "mlp.adapter_up");
  layer.expert_gate = trained(prefix + "mlp.experts.gate_proj.weight");
  layer.expert_up = trained(prefix + "mlp.experts.up_proj.weight");
  layer.expert_down = trained(prefix + "mlp.experts.down_proj.weight");
  layers_.push_back(layer);
}

Projection Model::make_projection(int64_t layer, Proj proj) const {
  const std::string name = "model.layers." + std::to_string(layer) + "." + projection_name(proj);
  const size_t which = static_cast<size_t>(proj);
  Projection projection;
  projection.which = proj;
  if (base_) {
    const BaseLayer& stored = base_->layers[static_cast<size_t>(layer)];
    projection.weight = stored.projections[which].weight();
    if (stored.biases[which]) projection.bias = stored.biases[which].as<const float>();
  } else {
    // Null for the FFN of an upcycled model: its experts stand for it.
    const Tensor weight = trained(name + ".weight");
    const Tensor bias = trained(name + ".bias");
    projection.weight = Weight::of(weight.value, projection_rows(config_, proj), projection_cols(config_, proj));
    projection.weight_parameter = weight.parameter;
    projection.bias = bias.value.as<float>();
    projection.bias_parameter = bias.parameter;
  }
  projection.lora_a = trained(name + ".lora_a");
  projection.lora_b = trained(name + ".lora_b");
  if (projection.lora_a.parameter != nullptr) {
    projection.rank = method_.lora_rank;
    projection.lora_scale = method_.lora_alpha / static_cast<float>(method_.lora_rank);
  }
  return projection;
}

}  // namespace caravan
