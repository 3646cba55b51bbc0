// Folders with what was trained, without the base model: PEFT's LoRA (adapter_config.json, adapter_model.safetensors), and
// Caravan's own with experts and routers too (caravan_adapter.json, caravan_adapter.safetensors).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/model/trainable_set.h"

namespace caravan {

inline constexpr const char* peft_config_name = "adapter_config.json";
inline constexpr const char* peft_weights_name = "adapter_model.safetensors";
inline constexpr const char* adapter_config_name = "caravan_adapter.json";
inline constexpr const char* adapter_weights_name = "caravan_adapter.safetensors";

/// What an adapter says of the base model it belongs to.
struct AdapterBase {
  std::string name;      // as PEFT's base_model_name_or_path: a path, or a name
  std::string identity;  // hash of its tensors; may be empty
};

bool is_adapter_folder(const std::string& dir);

/// PEFT's name of one of our LoRA parameters: "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight".
std::string peft_tensor_name(const std::string& parameter);

std::string write_peft_config(const MethodOptions& method, const AdapterBase& base);
std::string write_adapter_config(const MethodOptions& method, const AdapterBase& base, DType dtype);

/// A set of the method that the folder says, its values read. Projections that a PEFT adapter leaves out have LoRA 0.
/// @throws EngineError bad_file, naming key or tensor; also for what this engine would not compute (DoRA, biases, ...)
std::shared_ptr<TrainableSet> load_adapter_folder(const Exec& exec, const std::string& dir, const ModelConfig& config);

}  // namespace caravan
