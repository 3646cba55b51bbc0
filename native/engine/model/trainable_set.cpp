#include "engine/model/trainable_set.h"

#include <cmath>
#include <numeric>

#include "engine/platform/error.h"
#include "kernels/activation.h"
#include "kernels/random.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

std::string layer_prefix(int64_t layer) { return "model.layers." + std::to_string(layer) + "."; }

/// Collects parameters in the canonical order.
class Lister {
 public:
  Lister(const ModelConfig& config, const MethodOptions& method) : config_(config), method_(method) {}

  std::vector<Parameter> list() {
    const bool all = method_.trains_everything();
    if (all) add("model.embed_tokens.weight", {config_.vocab_size, config_.hidden_size}, ParameterGroup::base);
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      if (all) add_whole_layer(layer);
      if (method_.has_lora()) add_lora(layer);
      if (method_.has_adapters()) add_adapters(layer);
      if (method_.has_experts()) {
        add(layer_prefix(layer) + "mlp.router", {method_.num_experts, config_.hidden_size}, ParameterGroup::router);
      }
    }
    if (all) add("model.norm.weight", {config_.hidden_size}, ParameterGroup::base);
    if (all && !config_.tied_embeddings) {
      add("lm_head.weight", {config_.vocab_size, config_.hidden_size}, ParameterGroup::base);
    }
    return std::move(parameters_);
  }

 private:
  void add(std::string name, std::vector<int64_t> shape, ParameterGroup group) {
    Parameter parameter;
    parameter.name = std::move(name);
    parameter.count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    parameter.shape = std::move(shape);
    parameter.index = static_cast<uint32_t>(parameters_.size());
    parameter.group = group;
    parameters_.push_back(std::move(parameter));
  }

  void add_projection(int64_t layer, Proj proj) {
    const std::string name = layer_prefix(layer) + projection_name(proj);
    add(name + ".weight", {projection_rows(config_, proj), projection_cols(config_, proj)}, ParameterGroup::base);
    if (projection_has_bias(config_, proj)) add(name + ".bias", {projection_rows(config_, proj)}, ParameterGroup::base);
  }

  void add_whole_layer(int64_t layer) {
    const std::string prefix = layer_prefix(layer);
    add(prefix + "input_layernorm.weight", {config_.hidden_size}, ParameterGroup::base);
    for (const Proj proj : {Proj::q, Proj::k, Proj::v, Proj::o}) add_projection(layer, proj);
    if (config_.qk_norm) {
      add(prefix + "self_attn.q_norm.weight", {config_.head_dim}, ParameterGroup::base);
      add(prefix + "self_attn.k_norm.weight", {config_.head_dim}, ParameterGroup::base);
    }
    add(prefix + "post_attention_layernorm.weight", {config_.hidden_size}, ParameterGroup::base);
    if (method_.method == Method::full) {
      for (const Proj proj : {Proj::gate, Proj::up, Proj::down}) add_projection(layer, proj);
      return;
    }
    const int64_t e = method_.num_experts, c = config_.hidden_size, f = config_.intermediate_size;
    add(prefix + "mlp.experts.gate_proj.weight", {e, f, c}, ParameterGroup::expert);
    add(prefix + "mlp.experts.up_proj.weight", {e, f, c}, ParameterGroup::expert);
    add(prefix + "mlp.experts.down_proj.weight", {e, c, f}, ParameterGroup::expert);
  }

  void add_lora(int64_t layer) {
    for (const Proj proj : all_projections) {
      const std::string name = layer_prefix(layer) + projection_name(proj);
      add(name + ".lora_a", {method_.lora_rank, projection_cols(config_, proj)}, ParameterGroup::lora);
      add(name + ".lora_b", {projection_rows(config_, proj), method_.lora_rank}, ParameterGroup::lora);
    }
  }

  void add_adapters(int64_t layer) {
    const int64_t e = method_.num_experts, a = method_.adapter_dim, c = config_.hidden_size;
    add(layer_prefix(layer) + "mlp.adapter_down", {e, a, c}, ParameterGroup::adapter);
    add(layer_prefix(layer) + "mlp.adapter_up", {e, c, a}, ParameterGroup::adapter);
  }

  const ModelConfig& config_;
  const MethodOptions& method_;
  std::vector<Parameter> parameters_;
};

bool is_vector(const Parameter& parameter) { return parameter.shape.size() == 1; }

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

bool ends_with(const std::string& text, const std::string& tail) {
  return text.size() >= tail.size() && text.compare(text.size() - tail.size(), tail.size(), tail) == 0;
}

void copy_weight(const Exec& exec, Ptr out, const Weight& weight) {
  if (weight.nf4 != nullptr) {
    nf4_dequantize(exec, out, *weight.nf4);
  } else {
    convert(exec, out, weight.dense, weight.rows * weight.cols);
  }
}

}  // namespace

std::vector<Parameter> list_parameters(const ModelConfig& config, const MethodOptions& method) {
  if (method.method == Method::upcycle && config.mlp_bias) {
    throw EngineError("bad_option",
                      "method is \"upcycle\", but the model's MLP has biases, which its experts lack; "
                      "use pesc, lora or full");
  }
  return Lister(config, method).list();
}

TrainableSet::TrainableSet(Device device, const ModelConfig& config, const MethodOptions& method, DType train_dtype,
                           DType router_dtype)
    : device_(device), config_(config), method_(method), dtype_(train_dtype) {
  parameters_ = list_parameters(config, method);
  for (const Parameter& parameter : parameters_) by_name_[parameter.name] = parameter.index;
  size_t bytes = 0;
  for (Parameter& parameter : parameters_) {
    const bool routes = parameter.group == ParameterGroup::router;
    parameter.value.dtype = is_vector(parameter) ? DType::f32 : routes ? router_dtype : train_dtype;
    bytes += aligned(static_cast<size_t>(parameter.count) * size_of(parameter.value.dtype));
  }
  values_ = DeviceBuffer(device, bytes);
  size_t offset = 0;
  for (Parameter& parameter : parameters_) {
    parameter.value.data = values_.data() + offset;
    offset += aligned(static_cast<size_t>(parameter.count) * size_of(parameter.value.dtype));
  }
  for (const Parameter& parameter : parameters_) {
    const Parameter* before = runs_.empty() ? nullptr : &parameters_[runs_.back().first];
    if (before == nullptr || before->value.dtype != parameter.value.dtype ||
        is_vector(*before) != is_vector(parameter)) {
      runs_.push_back({parameter.index, 0, 0});
      before = &parameter;
    }
    ParameterRun& run = runs_.back();
    run.count += 1;
    const ptrdiff_t bytes = parameter.value.as<char>() - before->value.as<char>();
    run.elements = static_cast<int64_t>(static_cast<size_t>(bytes) / size_of(parameter.value.dtype)) + parameter.count;
  }
}

void TrainableSet::allocate_gradients() {
  if (gradients_) return;
  gradients_ = DeviceBuffer(device_, values_.bytes());
  for (Parameter& parameter : parameters_) {
    const ptrdiff_t offset = parameter.value.as<char>() - values_.data();
    parameter.gradient = Ptr(gradients_.data() + offset, parameter.value.dtype);
  }
}

void TrainableSet::allocate_copies() {
  if (dtype_ != DType::f32 || copies_) return;
  copies_ = DeviceBuffer(device_, values_.bytes() / 2);
  for (Parameter& parameter : parameters_) {
    if (is_vector(parameter) || parameter.group == ParameterGroup::router) continue;
    const ptrdiff_t offset = parameter.value.as<char>() - values_.data();
    parameter.copy = Ptr(copies_.data() + offset / 2, DType::bf16);
  }
}

void TrainableSet::refresh_copies(const Exec& exec) {
  if (!copies_) return;
  convert(exec, copies_.ptr(DType::bf16), values_.ptr(DType::f32), static_cast<int64_t>(copies_.bytes() / 2));
}

void TrainableSet::zero_gradients(const Exec& exec) {
  if (exec.device == Device::cuda) {
    zero_bytes(exec, gradients_.data(), gradients_.bytes());  // one launch for hundreds of tensors
    return;
  }
  for (Parameter& parameter : parameters_) fill_zero(exec, parameter.gradient, parameter.count);
}

Parameter* TrainableSet::find(const std::string& name) {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &parameters_[found->second];
}

int64_t TrainableSet::count() const {
  int64_t total = 0;
  for (const Parameter& parameter : parameters_) total += parameter.count;
  return total;
}

void TrainableSet::initialise(const Exec& exec, const BaseModel& base, uint32_t seed) {
  if (method_.trains_everything()) copy_base(exec, base);
  for (const Parameter& parameter : parameters_) {
    const bool zero = ends_with(parameter.name, ".lora_b") || ends_with(parameter.name, ".adapter_up");
    const bool random = ends_with(parameter.name, ".lora_a") || ends_with(parameter.name, ".adapter_down") ||
                        ends_with(parameter.name, ".router");
    const float fan_in = static_cast<float>(parameter.shape.back());
    if (zero) fill_zero(exec, parameter.value, parameter.count);
    if (random) {
      fill_uniform(exec, parameter.value, parameter.count, 1.0f / std::sqrt(fan_in), seed, parameter.index);
    }
  }
}

void TrainableSet::copy_base(const Exec& exec, const BaseModel& base) {
  const auto copy_vector = [&](const std::string& name, const DeviceBuffer& stored) {
    if (Parameter* parameter = find(name)) convert(exec, parameter->value, stored.as<const float>(), parameter->count);
  };
  copy_weight(exec, find("model.embed_tokens.weight")->value, base.embedding.weight());
  copy_vector("model.norm.weight", base.final_norm);
  if (Parameter* head = find("lm_head.weight")) copy_weight(exec, head->value, base.head.weight());
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const BaseLayer& layer = base.layers[static_cast<size_t>(i)];
    const std::string prefix = layer_prefix(i);
    copy_vector(prefix + "input_layernorm.weight", layer.input_norm);
    copy_vector(prefix + "post_attention_layernorm.weight", layer.post_norm);
    copy_vector(prefix + "self_attn.q_norm.weight", layer.q_norm);
    copy_vector(prefix + "self_attn.k_norm.weight", layer.k_norm);
    for (const Proj proj : all_projections) {
      const size_t which = static_cast<size_t>(proj);
      const std::string name = prefix + projection_name(proj);
      copy_vector(name + ".bias", layer.biases[which]);
      if (Parameter* dense = find(name + ".weight")) {
        copy_weight(exec, dense->value, layer.projections[which].weight());
        continue;
      }
      // "mlp.gate_proj" -> "mlp.experts.gate_proj": every expert starts as the FFN.
      Parameter* experts = find(prefix + "mlp.experts." + std::string(projection_name(proj)).substr(4) + ".weight");
      const int64_t each = experts->count / method_.num_experts;
      for (int64_t e = 0; e < method_.num_experts; ++e) {
        copy_weight(exec, experts->value.at(e * each), layer.projections[which].weight());
      }
    }
  }
}

}  // namespace caravan
