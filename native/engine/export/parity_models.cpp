#include "engine/export/parity_models.h"

namespace caravan {

std::vector<std::vector<float>> logits_of(InferenceModel& model, std::span<const std::vector<int32_t>> rows,
                                          const ExportWatch& watch, const char* stage) {
  std::vector<std::vector<float>> logits;
  for (const std::vector<int32_t>& row : rows) {
    watch.check();
    logits.push_back(model.logits(row));
    watch.tell(stage, static_cast<int64_t>(logits.size()), static_cast<int64_t>(rows.size()));
  }
  return logits;
}

std::shared_ptr<InferenceModel> in_memory(const TrainedModel& model, std::shared_ptr<const BaseModel> base,
                                          std::shared_ptr<TrainableSet> set, int threads) {
  const ModelConfig& config = model.config();
  return std::make_shared<InferenceModel>(
      std::make_shared<const Model>(Exec(), config, std::move(base), std::move(set), config.max_sequence()), DType::f32,
      threads);
}

std::shared_ptr<InferenceModel> open_as_trained(const ExportOptions& options) {
  OpenModelOptions open;
  open.model_dir = options.model_dir;
  open.base_dtype = options.base.dtype;
  open.double_quant = options.base.double_quant;
  open.compute_dtype = DType::f32;
  open.checkpoint_dir = options.checkpoint_dir;
  open.threads = options.threads;
  return InferenceModel::open(open);
}

std::vector<UnusedExpert> unused_experts(InferenceModel& model, std::span<const std::vector<int32_t>> rows) {
  std::vector<UnusedExpert> unused;
  if (model.num_experts() == 0) return unused;
  const RouteResult route = model.route(rows, std::vector<int64_t>(rows.size(), 0), 1);
  for (int64_t layer = 0; layer < route.layers; ++layer) {
    for (int64_t expert = 0; expert < route.experts; ++expert) {
      if (route.any[static_cast<size_t>(layer * route.experts + expert)] == 0.0) unused.push_back({layer, expert});
    }
  }
  return unused;
}

std::shared_ptr<const BaseModel> base_of(const ModelConfig& config,
                                         const std::function<DeviceBuffer(const std::string&)>& values) {
  auto base = std::make_shared<BaseModel>();
  base->config = config;
  base->options = {BaseDType::f32, true, DType::f32};
  base->layers.resize(static_cast<size_t>(config.num_layers));
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    return StoredWeight(values(name), DType::f32, rows, cols);
  };
  base->embedding = matrix("model.embed_tokens.weight", config.vocab_size, config.hidden_size);
  base->final_norm = values("model.norm.weight");
  if (!config.tied_embeddings) base->head = matrix("lm_head.weight", config.vocab_size, config.hidden_size);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    BaseLayer& layer = base->layers[static_cast<size_t>(i)];
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    layer.input_norm = values(prefix + "input_layernorm.weight");
    layer.post_norm = values(prefix + "post_attention_layernorm.weight");
    if (config.qk_norm) {
      layer.q_norm = values(prefix + "self_attn.q_norm.weight");
      layer.k_norm = values(prefix + "self_attn.k_norm.weight");
    }
    for (const Proj proj : all_projections) {
      const size_t which = static_cast<size_t>(proj);
      const std::string name = prefix + projection_name(proj);
      layer.projections[which] = matrix(name + ".weight", projection_rows(config, proj), projection_cols(config, proj));
      if (projection_has_bias(config, proj)) layer.biases[which] = values(name + ".bias");
    }
  }
  return base;
}

}  // namespace caravan
