#include "engine/export/trained_model.h"

#include <cmath>

#include "engine/checkpoint/trained_weights.h"
#include "engine/model/model_source.h"
#include "engine/model/stored_experts.h"
#include "engine/platform/error.h"
#include "kernels/activation.h"

namespace caravan {

BaseOptions stored_base_options(const std::string& model_dir) {
  const std::vector<std::string> types = ModelSource::open(model_dir)->stored_types();
  const bool narrow = types.size() == 1 && types[0] == "BF16";
  return {narrow ? BaseDType::bf16 : BaseDType::f32, true, narrow ? DType::bf16 : DType::f32};
}

TrainedModel TrainedModel::open(const Exec& exec, const ExportOptions& options, const ExportWatch& watch) {
  TrainedModel model;
  model.exec_ = exec;
  model.config_ = read_model_config(options.model_dir);
  if (!options.checkpoint_dir.empty()) {
    refuse_stored_experts(model.config_, options.model_dir);
    model.set_ = load_trained_weights(exec, options.checkpoint_dir, model.config_);
  } else if (model.config_.experts.any()) {
    const DType dtype = options.base.dtype == BaseDType::f32 ? DType::f32 : DType::bf16;
    model.set_ = load_stored_experts(exec, *ModelSource::open(options.model_dir), dtype, {});
  }
  if (model.set_ != nullptr) model.method_ = model.set_->method();
  watch.check();
  if (!model.method_.trains_everything()) {
    const BaseOptions base = options.original_base ? stored_base_options(options.model_dir) : options.base;
    model.base_ = load_base_model(exec, options.model_dir, base, [&](int64_t done, int64_t total) {
      watch.tell("loading the base", done, total);
      watch.check();
    });
    model.list_base();
  }
  return model;
}

void TrainedModel::list_base() {
  dense_["model.embed_tokens.weight"] = {&base_->embedding, nullptr};
  dense_["model.norm.weight"] = {nullptr, &base_->final_norm};
  if (!config_.tied_embeddings) dense_["lm_head.weight"] = {&base_->head, nullptr};
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const BaseLayer& layer = base_->layers[static_cast<size_t>(i)];
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    dense_[prefix + "input_layernorm.weight"] = {nullptr, &layer.input_norm};
    dense_[prefix + "post_attention_layernorm.weight"] = {nullptr, &layer.post_norm};
    if (config_.qk_norm) {
      dense_[prefix + "self_attn.q_norm.weight"] = {nullptr, &layer.q_norm};
      dense_[prefix + "self_attn.k_norm.weight"] = {nullptr, &layer.k_norm};
    }
    for (const Proj proj : all_projections) {
      const size_t which = static_cast<size_t>(proj);
      const std::string name = prefix + projection_name(proj);
      dense_[name + ".weight"] = {&layer.projections[which], nullptr};
      if (projection_has_bias(config_, proj)) dense_[name + ".bias"] = {nullptr, &layer.biases[which]};
    }
  }
}

const Parameter& TrainedModel::parameter(const std::string& name) const {
  const Parameter* found = set_ == nullptr ? nullptr : set_->find(name);
  if (found == nullptr) throw EngineError("internal", "the checkpoint has no parameter " + name);
  return *found;
}

/// "….weight" -> its LoRA.
bool TrainedModel::has_lora(const std::string& name) const {
  return base_ != nullptr && set_ != nullptr && name.ends_with(".weight") &&
         set_->find(name.substr(0, name.size() - 7) + ".lora_a") != nullptr;
}

TensorRule TrainedModel::rule(const TensorOrigin& origin) const {
  return !origin.parameter && has_lora(origin.name) ? TensorRule::merged : TensorRule::copied;
}

bool TrainedModel::can_slice(const TensorOrigin& origin) const {
  if (origin.parameter || base_ == nullptr) return true;
  const auto found = dense_.find(origin.name);
  const bool in_blocks =
      found != dense_.end() && found->second.weight != nullptr && found->second.weight->weight().nf4 != nullptr;
  return !in_blocks && !has_lora(origin.name);
}

void TrainedModel::read_unmerged(const std::string& name, int64_t first, int64_t count, float* out) const {
  if (base_ == nullptr) {
    convert(exec_, out, ConstPtr(parameter(name).value).at(first), count);
    return;
  }
  const auto found = dense_.find(name);
  if (found == dense_.end()) throw EngineError("internal", "the base has no tensor " + name);
  const Dense& dense = found->second;
  if (dense.vector != nullptr) {
    convert(exec_, out, ConstPtr(dense.vector->as<const float>()).at(first), count);
  } else if (const Weight weight = dense.weight->weight(); weight.nf4 != nullptr) {
    nf4_dequantize(exec_, out, *weight.nf4);
  } else {
    convert(exec_, out, weight.dense.at(first), count);
  }
}

void TrainedModel::read(const TensorOrigin& origin, int64_t count, float* out) const {
  if (origin.parameter) {
    convert(exec_, out, ConstPtr(parameter(origin.name).value).at(origin.first), count);
    return;
  }
  read_unmerged(origin.name, origin.first, count, out);
  if (!has_lora(origin.name)) return;
  const std::string prefix = origin.name.substr(0, origin.name.size() - 7);
  const Parameter& a = parameter(prefix + ".lora_a");  // (R, in)
  const Parameter& b = parameter(prefix + ".lora_b");  // (out, R)
  const int64_t rank = method_.lora_rank;
  std::vector<float> wide_a(static_cast<size_t>(a.count)), wide_b(static_cast<size_t>(b.count));
  convert(exec_, wide_a.data(), a.value, a.count);
  convert(exec_, wide_b.data(), b.value, b.count);
  linear_backward_input(exec_, out, wide_b.data(), Weight::of(ConstPtr(wide_a.data()), rank, a.shape[1]), b.shape[0],
                        method_.lora_alpha / static_cast<float>(rank), true);
}

void TrainedModel::expect(const TensorOrigin& origin, int64_t count, double* out, double* scale) const {
  std::vector<float> plain(static_cast<size_t>(count));
  if (origin.parameter) {
    convert(exec_, plain.data(), ConstPtr(parameter(origin.name).value).at(origin.first), count);
  } else {
    read_unmerged(origin.name, origin.first, count, plain.data());
  }
  for (int64_t i = 0; i < count; ++i) {
    out[i] = double{plain[static_cast<size_t>(i)]};
    scale[i] = std::fabs(out[i]);
  }
  if (origin.parameter || !has_lora(origin.name)) return;
  const std::string prefix = origin.name.substr(0, origin.name.size() - 7);
  const Parameter& a = parameter(prefix + ".lora_a");
  const Parameter& b = parameter(prefix + ".lora_b");
  const int64_t rank = method_.lora_rank, cols = a.shape[1], rows = b.shape[0];
  const double factor = double{method_.lora_alpha} / static_cast<double>(rank);
  std::vector<float> wide_a(static_cast<size_t>(a.count)), wide_b(static_cast<size_t>(b.count));
  convert(exec_, wide_a.data(), a.value, a.count);
  convert(exec_, wide_b.data(), b.value, b.count);
  parallel_for(exec_, rows, 1, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      for (int64_t r = 0; r < rank; ++r) {
        const double weight = factor * double{wide_b[static_cast<size_t>(row * rank + r)]};
        const float* from = wide_a.data() + r * cols;
        double* to = out + row * cols;
        double* bound = scale + row * cols;
        for (int64_t i = 0; i < cols; ++i) {
          const double term = weight * double{from[i]};
          to[i] += term;
          bound[i] += std::fabs(term);
        }
      }
    }
  });
}

}  // namespace caravan
