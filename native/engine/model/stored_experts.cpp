#include "engine/model/stored_experts.h"

#include "kernels/transfer.h"

namespace caravan {

namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + ")";
}

}  // namespace

void read_stored_experts(const ConfigReader& reader, ModelConfig& config) {
  StoredExperts& experts = config.experts;
  if (config.architecture == "MixtralForCausalLM") {
    experts.num_experts = reader.integer("num_local_experts", 1, 4096);
    experts.top_k = reader.integer("num_experts_per_tok", 1, experts.num_experts);
    return;
  }
  const std::string type = reader.text_or("model_type", "");
  // First uploads of Camelidae call themselves "llama": the adapters' size is what tells them.
  if (type != "camelidae" && type != "qwen2idae" && type != "sparsetral" && !reader.has("adapter_dim")) return;
  experts.num_experts = reader.integer("num_experts", 1, 4096);
  experts.top_k = reader.integer("topk", 1, experts.num_experts);
  experts.adapter_dim = reader.integer("adapter_dim");
  experts.adapter_scale = static_cast<float>(reader.number("moe_scaling"));
  // The published modelling code of Camelidae never reads rope_theta, and its configurations leave it out. Camelidae-8x34B
  // stands on Yi-34B, whose rotary base is 5,000,000: with 10,000 its text is noise.
  if (!reader.has("rope_theta") && config.hidden_size == 7168 && config.num_layers == 60 &&
      config.vocab_size == 64000) {
    config.rope_theta = 5e6;
  }
}

void refuse_stored_experts(const ModelConfig& config, const std::string& path) {
  if (!config.experts.any()) return;
  throw EngineError(
      "unsupported_architecture",
      path + ": is a mixture of experts already (" + std::to_string(config.experts.num_experts) +
          " experts), which can be talked to and scored, but not trained on; take a dense model as the base");
}

MethodOptions stored_method(const StoredExperts& experts) {
  MethodOptions method;
  method.method = experts.adapter_dim > 0 ? Method::pesc : Method::upcycle;
  method.lora_rank = 0;
  method.num_experts = experts.num_experts;
  method.top_k = experts.top_k;
  method.adapter_dim = experts.adapter_dim;
  method.adapter_scale = experts.adapter_scale;
  method.lora_dropout = method.adapter_dropout = 0.0f;
  return method;
}

std::vector<StoredSlices> stored_slices(const ModelConfig& config, int64_t layer, AdapterSpelling spelling) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const auto each = [&](const std::string& before, const std::string& after) {
    std::vector<std::string> names;
    for (int64_t e = 0; e < config.experts.num_experts; ++e) names.push_back(before + std::to_string(e) + after);
    return names;
  };
  if (config.experts.adapter_dim == 0) {
    const std::string moe = prefix + "block_sparse_moe.";
    return {{prefix + "mlp.experts.gate_proj.weight", each(moe + "experts.", ".w1.weight")},
            {prefix + "mlp.experts.up_proj.weight", each(moe + "experts.", ".w3.weight")},
            {prefix + "mlp.experts.down_proj.weight", each(moe + "experts.", ".w2.weight")},
            {prefix + "mlp.router", {moe + "gate.weight"}}};
  }
  const std::string moe = prefix + "mlp.moe_adapter.";
  const std::string expert = moe + (spelling == AdapterSpelling::prefixed ? "experts.expert_" : "experts.");
  return {{prefix + "mlp.adapter_down", each(expert, ".adapter_down.weight")},
          {prefix + "mlp.adapter_up", each(expert, ".adapter_up.weight")},
          {prefix + "mlp.router", {moe + "router.weight"}}};
}

AdapterSpelling find_adapter_spelling(const ModelSource& source) {
  return source.find("model.layers.0.mlp.moe_adapter.experts.0.adapter_down.weight") ? AdapterSpelling::indexed
                                                                                     : AdapterSpelling::prefixed;
}

std::shared_ptr<TrainableSet> load_stored_experts(const Exec& exec, const ModelSource& source, DType dtype,
                                                  const std::function<void(int64_t, int64_t)>& progress) {
  const ModelConfig& config = source.config();
  auto set = std::make_shared<TrainableSet>(exec.device, config, stored_method(config.experts), dtype);
  const int64_t total = static_cast<int64_t>(source.tensor_bytes());
  int64_t done = 0;
  const auto read = [&](const std::string& name, const std::vector<int64_t>& shape, Ptr out) {
    const auto stored = source.find(name);
    if (!stored) {
      throw EngineError("bad_file", "the weights lack tensor " + name + ", which " + source.config_place() +
                                        " asks for; it and the weights must be of the same model");
    }
    if (stored->shape != shape) {
      throw EngineError("bad_file", stored->place + " has shape " + shape_text(stored->shape) + ", but " +
                                        source.config_place() + " asks for " + shape_text(shape));
    }
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    const DeviceBuffer staged = DeviceBuffer::of(Device::cpu, out.dtype, count);
    source.read(name, staged.ptr(out.dtype));
    upload(exec, out.data, staged.data(), staged.bytes());
    done += static_cast<int64_t>(stored->bytes);
    if (progress) progress(done, total);
  };
  const AdapterSpelling spelling = find_adapter_spelling(source);
  std::unordered_map<std::string, std::vector<std::string>> slices;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (StoredSlices& slice : stored_slices(config, layer, spelling))
      slices.emplace(std::move(slice.parameter), std::move(slice.tensors));
  }
  for (const Parameter& parameter : set->parameters()) {
    const auto found = slices.find(parameter.name);
    if (found == slices.end()) {
      read(parameter.name, parameter.shape, parameter.value);
      continue;
    }
    const int64_t parts = static_cast<int64_t>(found->second.size());
    // A router is one tensor; of the others each expert has its own.
    const std::vector<int64_t> shape(parameter.shape.begin() + (parts > 1 || parameter.shape.size() > 2 ? 1 : 0),
                                     parameter.shape.end());
    for (int64_t part = 0; part < parts; ++part) {
      read(found->second[static_cast<size_t>(part)], shape, parameter.value.at(part * (parameter.count / parts)));
    }
  }
  return set;
}

}  // namespace caravan
