#include "engine/model/model_summary.h"

#include <sstream>

#include "engine/model/base_model.h"
#include "engine/model/model_source.h"
#include "engine/model/stored_experts.h"
#include "engine/platform/error.h"

namespace caravan {

ParameterCounts count_parameters(const ModelConfig& config) {
  ParameterCounts counts;
  counts.embedding = config.vocab_size * config.hidden_size;
  counts.head = config.tied_embeddings ? 0 : counts.embedding;
  for (const Proj proj : all_projections) {
    const int64_t rows = projection_rows(config, proj);
    const int64_t count = rows * projection_cols(config, proj) + (projection_has_bias(config, proj) ? rows : 0);
    const bool mlp = proj == Proj::gate || proj == Proj::up || proj == Proj::down;
    (mlp ? counts.mlp : counts.attention) += count * config.num_layers;
  }
  counts.total = config.parameter_count();
  counts.norms = counts.total - counts.embedding - counts.head - counts.attention - counts.mlp;
  if (!config.experts.any()) return counts;
  const int64_t whole_ffn = counts.mlp;
  if (config.experts.adapter_dim == 0) {
    counts.total -= whole_ffn;
    counts.mlp = 0;
  }
  for (const Parameter& parameter : list_parameters(config, stored_method(config.experts))) {
    if (parameter.group != ParameterGroup::base) counts.experts += parameter.count;
  }
  counts.total += counts.experts;
  return counts;
}

ModelSummary summarize_model(const std::string& path) {
  const std::unique_ptr<ModelSource> source = ModelSource::open(path);
  ModelSummary summary;
  summary.config = source->config();
  summary.parameters = count_parameters(summary.config);
  summary.file_bytes = source->tensor_bytes();
  summary.stored_types = source->stored_types();
  const auto require = [&](const std::string& name) {
    if (!source->find(name)) {
      throw EngineError("bad_file",
                        path + ": the weights lack " + name + ", which " + source->config_place() + " asks for");
    }
  };
  require("model.embed_tokens.weight");
  for (const Proj proj : all_projections) {
    for (int64_t layer = 0; layer < summary.config.num_layers; ++layer) {
      if (summary.config.architecture == "MixtralForCausalLM" && proj >= Proj::gate) continue;
      require("model.layers." + std::to_string(layer) + "." + projection_name(proj) + ".weight");
    }
  }
  for (int64_t layer = 0; summary.config.experts.any() && layer < summary.config.num_layers; ++layer) {
    for (const StoredSlices& slices : stored_slices(summary.config, layer, find_adapter_spelling(*source)))
      for (const std::string& name : slices.tensors) require(name);
  }
  return summary;
}

std::string describe_rope_scaling(const RopeScaling& scaling) {
  std::ostringstream text;
  switch (scaling.kind) {
    case RopeKind::plain: return {};
    case RopeKind::linear: text << "linear"; break;
    case RopeKind::dynamic: text << "dynamic"; break;
    case RopeKind::llama3: text << "llama3"; break;
    case RopeKind::yarn: text << "yarn"; break;
    case RopeKind::divisors: return "a divisor for each frequency";
  }
  text << " x" << scaling.factor;
  return text.str();
}

}  // namespace caravan
