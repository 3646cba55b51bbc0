// Sparse models as they are published: the adapters and routers of Camelidae, Qwen2idae and sparsetral, and the experts of
// Mixtral. Their own keys and tensor names stand in stored_experts.cpp alone.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/config_reader.h"
#include "engine/model/model_config.h"
#include "engine/model/model_source.h"
#include "engine/model/trainable_set.h"

namespace caravan {

/// Fills `config.experts`, and what else a published sparse model needs to be read right.
/// @throws EngineError bad_file, naming the key
void read_stored_experts(const ConfigReader& reader, ModelConfig& config);

/// A model with experts is whole as it is: nothing is trained on top of it. @throws EngineError unsupported_architecture
void refuse_stored_experts(const ModelConfig& config, const std::string& path);

/// The method that computes what a stored sparse model does. It has no LoRA: that is merged into the weights.
MethodOptions stored_method(const StoredExperts& experts);

/// Parameter names of our own -> tensors of the file, in the order of the parameter's outermost dimension.
struct StoredSlices {
  std::string parameter;
  std::vector<std::string> tensors;
};
/// Where a published model keeps each layer's router and experts; `spelled` is the spelling of its adapters.
enum class AdapterSpelling : uint8_t { prefixed, indexed };  // experts.expert_0 (Camelidae), experts.0 (sparsetral)
std::vector<StoredSlices> stored_slices(const ModelConfig& config, int64_t layer, AdapterSpelling spelling);
AdapterSpelling find_adapter_spelling(const ModelSource& source);

/// Reads them into a set of `stored_method`; of whole-FFN experts the rest of the model too, which then needs no base.
/// @throws EngineError bad_file, naming the tensor
std::shared_ptr<TrainableSet> load_stored_experts(const Exec& exec, const ModelSource& source, DType dtype,
                                                  const std::function<void(int64_t, int64_t)>& progress);

}  // namespace caravan
