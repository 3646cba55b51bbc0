#include "engine/model/adapter_folder.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <unordered_map>

#include "engine/io/safetensors.h"
#include "engine/model/config_reader.h"
#include "engine/platform/error.h"
#include "kernels/transfer.h"

namespace caravan {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* adapter_format = "caravan-adapter-1";

std::string join(const std::string& dir, const char* name) { return (fs::path(dir) / name).string(); }

nlohmann::json read_json(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream) throw EngineError("bad_file", file + ": cannot be read");
  nlohmann::json json = nlohmann::json::parse(text.str(), nullptr, false);
  if (json.is_discarded() || !json.is_object()) throw EngineError("bad_file", file + ": is no JSON object");
  return json;
}

/// An adapter's numbers, read with the limits that training has.
MethodOptions checked(const MethodOptions& method, const std::string& file) {
  try {
    check_method_options(method);
  } catch (const EngineError& error) {
    throw EngineError("bad_file", file + ": " + error.what());
  }
  return method;
}

MethodOptions read_peft_config(const std::string& file) {
  const nlohmann::json json = read_json(file);
  const ConfigReader reader(json, file);
  if (reader.text_or("peft_type", "") != "LORA") {
    reader.fail("peft_type", "is not \"LORA\"; of PEFT's adapters LoRA alone is supported");
  }
  for (const char* key : {"use_dora", "use_qalora", "fan_in_fan_out", "lora_bias"}) {
    if (reader.boolean_or(key, false)) reader.fail(key, "is true, which this engine does not compute");
  }
  if (reader.text_or("bias", "none") != "none")
    reader.fail("bias", "is not \"none\"; trained biases are not supported");
  for (const char* key : {"rank_pattern", "alpha_pattern", "modules_to_save", "target_parameters", "layer_replication",
                          "trainable_token_indices"}) {
    if (reader.has(key) && !reader.at(key).empty()) reader.fail(key, "is set, which is not supported");
  }
  MethodOptions method;
  method.method = Method::lora;
  method.lora_rank = reader.integer("r", 1, 1 << 20);
  const double alpha = reader.number("lora_alpha");
  // The scale is alpha / R here; rank-stabilised LoRA's is alpha / sqrt(R).
  method.lora_alpha = static_cast<float>(
      reader.boolean_or("use_rslora", false) ? alpha * std::sqrt(static_cast<double>(method.lora_rank)) : alpha);
  method.lora_dropout = 0.0f;
  return checked(method, file);
}

MethodOptions read_own_config(const std::string& file) {
  const nlohmann::json json = read_json(file);
  const ConfigReader reader(json, file);
  if (reader.text_or("format", "") != adapter_format) {
    reader.fail("format", std::string("is not \"") + adapter_format + "\"; another version wrote it");
  }
  MethodOptions method;
  method.method = reader.text_or("method", "") == "pesc" ? Method::pesc : Method::lora;
  method.lora_rank = reader.integer("lora_rank", 1, 1 << 20);
  method.lora_alpha = static_cast<float>(reader.number("lora_alpha"));
  method.lora_dropout = method.adapter_dropout = 0.0f;
  if (method.method == Method::pesc) {
    method.num_experts = reader.integer("num_experts", 1, 4096);
    method.top_k = reader.integer("top_k", 1, 4096);
    method.adapter_dim = reader.integer("adapter_dim", 1, 1 << 20);
    method.adapter_scale = static_cast<float>(reader.number("adapter_scale"));
  }
  return checked(method, file);
}

}  // namespace

bool is_adapter_folder(const std::string& dir) {
  return fs::exists(join(dir, adapter_config_name)) || fs::exists(join(dir, peft_config_name));
}

std::string peft_tensor_name(const std::string& parameter) {
  const size_t dot = parameter.rfind('.');
  return "base_model.model." + parameter.substr(0, dot) + (parameter.ends_with(".lora_a") ? ".lora_A" : ".lora_B") +
         ".weight";
}

std::string write_peft_config(const MethodOptions& method, const AdapterBase& base) {
  // Keys as PEFT sorts them; those of newer versions have the defaults that it takes for absent ones.
  const Json json = {{"auto_mapping", nullptr},
                     {"base_model_name_or_path", base.name},
                     {"bias", "none"},
                     {"fan_in_fan_out", false},
                     {"inference_mode", true},
                     {"init_lora_weights", true},
                     {"layers_pattern", nullptr},
                     {"layers_to_transform", nullptr},
                     {"lora_alpha", method.lora_alpha},
                     {"lora_dropout", method.lora_dropout},
                     {"modules_to_save", nullptr},
                     {"peft_type", "LORA"},
                     {"r", method.lora_rank},
                     {"revision", nullptr},
                     {"target_modules", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}},
                     {"task_type", "CAUSAL_LM"}};
  return json.dump(2) + "\n";
}

std::string write_adapter_config(const MethodOptions& method, const AdapterBase& base, DType dtype) {
  Json json = {{"format", adapter_format},
               {"method", method_name(method.method)},
               {"base_model", base.name},
               {"base_identity", base.identity},
               {"dtype", dtype == DType::f32 ? "float32" : "bfloat16"},
               {"lora_rank", method.lora_rank},
               {"lora_alpha", method.lora_alpha}};
  if (method.method == Method::pesc) {
    json["num_experts"] = method.num_experts;
    json["top_k"] = method.top_k;
    json["adapter_dim"] = method.adapter_dim;
    json["adapter_scale"] = method.adapter_scale;
  }
  return json.dump(2) + "\n";
}

std::shared_ptr<TrainableSet> load_adapter_folder(const Exec& exec, const std::string& dir, const ModelConfig& config) {
  const bool own = fs::exists(join(dir, adapter_config_name));
  const MethodOptions method =
      own ? read_own_config(join(dir, adapter_config_name)) : read_peft_config(join(dir, peft_config_name));
  const SafetensorsFile file = SafetensorsFile::open(join(dir, own ? adapter_weights_name : peft_weights_name));
  const bool wide = !file.tensors().empty() && file.tensors()[0].type != StoredType::BF16;
  auto set = std::make_shared<TrainableSet>(exec.device, config, method, wide ? DType::f32 : DType::bf16);
  std::unordered_map<std::string, const Parameter*> wanted;
  for (const Parameter& parameter : set->parameters())
    wanted.emplace(own ? parameter.name : peft_tensor_name(parameter.name), &parameter);
  size_t read = 0;
  for (const TensorInfo& tensor : file.tensors()) {
    const auto found = wanted.find(tensor.name);
    if (found == wanted.end()) {
      throw EngineError("bad_file", file.path() + ": tensor '" + tensor.name + "' has no place in this base model");
    }
    if (tensor.shape != found->second->shape) {
      throw EngineError("bad_file", file.path() + ": tensor '" + tensor.name +
                                        "' has another shape than this base model asks for: is it of another one?");
    }
    const Parameter& parameter = *found->second;
    const DType dtype = parameter.value.dtype;
    const DeviceBuffer staged = DeviceBuffer::of(Device::cpu, dtype, parameter.count);
    read_tensor(file, tensor, staged.ptr(dtype));
    upload(exec, parameter.value.data, staged.data(), staged.bytes());
    ++read;
  }
  if (own && read != wanted.size()) {
    throw EngineError("bad_file", file.path() + ": holds " + std::to_string(read) + " tensors instead of " +
                                      std::to_string(wanted.size()));
  }
  return set;
}

}  // namespace caravan
