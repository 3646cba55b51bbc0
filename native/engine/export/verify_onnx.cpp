#include "engine/export/verify_onnx.h"

#include <algorithm>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include "engine/export/compare_tensors.h"
#include "engine/io/half.h"

namespace caravan {

namespace {

/// What the file holds of each of the model's tensors, made in memory and not from the file.
class RoundTrip {
 public:
  RoundTrip(const TrainedModel& model, const std::vector<OnnxTensor>& tensors) : model_(model) {
    for (const OnnxTensor& tensor : tensors) {
      for (const OnnxPart& part : tensor.parts) places_[part.origin.name] = {tensor.form, part};
    }
  }

  void fill(const std::string& name, float* out) const {
    const Place& place = places_.at(name);
    OnnxTensor alone;
    alone.parts = {place.part};
    for_row_slabs(model_, alone, [&](const OnnxPart&, int64_t row, int64_t rows, std::span<const float> values) {
      float* to = out + row * place.part.cols;
      if (is_blocked(place.form)) {
        dequantise_rows(place.form, quantise_rows(place.form, values, place.part.cols), place.part.cols, to);
      } else if (place.form == OnnxForm::f16) {
        std::transform(values.begin(), values.end(), to,
                       [](float value) { return half_to_float(float_to_half(value)); });
      } else {
        std::copy_n(values.begin(), rows * place.part.cols, to);
      }
    });
  }
  int64_t elements(const std::string& name) const {
    const OnnxPart& part = places_.at(name).part;
    return part.rows * part.cols;
  }

 private:
  struct Place {
    OnnxForm form = OnnxForm::f32;
    OnnxPart part;
  };
  const TrainedModel& model_;
  std::unordered_map<std::string, Place> places_;
};

std::shared_ptr<const BaseModel> dequantised_base(const TrainedModel& model, const RoundTrip& held) {
  return base_of(model.config(), [&](const std::string& name) {
    DeviceBuffer buffer = DeviceBuffer::of(Device::cpu, DType::f32, held.elements(name));
    held.fill(name, buffer.as<float>());
    return buffer;
  });
}

/// Experts and routers as the file holds them; LoRA is in the base.
std::shared_ptr<TrainableSet> dequantised_experts(const TrainedModel& model, const RoundTrip& held) {
  if (!model.method().has_adapters()) return nullptr;
  MethodOptions method = model.method();
  method.lora_rank = 0;
  auto set = std::make_shared<TrainableSet>(Device::cpu, model.config(), method, DType::f32);
  for (Parameter& parameter : set->parameters()) held.fill(parameter.name, static_cast<float*>(parameter.value.data));
  return set;
}

}  // namespace

OnnxReference verify_onnx(const TrainedModel& model, const ExportOptions& options,
                          const std::vector<OnnxTensor>& tensors, const std::string& path,
                          std::span<const std::vector<int32_t>> rows, const ExportWatch& watch) {
  OnnxReference found;
  const std::shared_ptr<ThreadPool> pool = make_thread_pool(options.threads);
  Exec exec;
  exec.pool = pool.get();
  found.tensors = compare_onnx_tensors(exec, model, tensors, path, watch);
  const bool original = options.original_base && model.base() != nullptr && !options.checkpoint_dir.empty();
  {
    const auto whole = in_memory(model, model.base(), model.set(), options.threads);
    found.logits = logits_of(*whole, rows, watch, "running the trained model");
    found.unused = unused_experts(*whole, rows);
  }
  found.reference = original ? "original_base" : "trained";
  if (is_quantised(options.type)) {
    found.reference = "dequantised";
    if (!original) found.trained = std::move(found.logits);
    const RoundTrip held(model, tensors);
    const auto exact =
        in_memory(model, dequantised_base(model, held), dequantised_experts(model, held), options.threads);
    found.logits = logits_of(*exact, rows, watch, "running the dequantised weights");
    found.has_trained = true;
  }
  if (original) {
    const auto as_trained = open_as_trained(options);
    found.trained = logits_of(*as_trained, rows, watch, "running the run as trained");
    found.has_trained = true;
  }
  return found;
}

std::string reference_json(const OnnxReference& found) {
  return nlohmann::ordered_json{
      {"reference", found.reference}, {"tensors", to_json(found.tensors)}, {"unusedExperts", to_json(found.unused)}}
      .dump();
}

std::string describe_onnx(const ExportOptions& options) {
  using Json = nlohmann::ordered_json;
  const ExportPlan plan = plan_export(options);
  const ModelConfig& config = plan.config;
  Json rotates = Json::array();
  for (int64_t i = 0; i < config.num_layers; ++i) {
    rotates.push_back(config.no_rope.empty() || config.no_rope[static_cast<size_t>(i)] == 0);
  }
  // Frequencies that change with the length of a sequence have no table: up to max_positions they do not change.
  const bool dynamic = config.rope.kind == RopeKind::dynamic;
  return Json{{"architecture", config.architecture},
              {"family", config.family},
              {"hiddenSize", config.hidden_size},
              {"intermediateSize", config.intermediate_size},
              {"numLayers", config.num_layers},
              {"numHeads", config.num_heads},
              {"numKvHeads", config.num_kv_heads},
              {"headDim", config.head_dim},
              {"vocabSize", config.vocab_size},
              {"contextLength", dynamic ? config.max_positions : config.max_sequence()},
              {"normEps", config.norm_eps},
              {"tiedEmbeddings", config.tied_embeddings},
              {"qkvBias", config.qkv_bias},
              {"oBias", config.o_bias},
              {"mlpBias", config.mlp_bias},
              {"qkNorm", config.qk_norm},
              {"windows", config.windows},
              {"rotates", rotates},
              {"experts", plan.method.has_adapters() ? Json{{"count", plan.method.num_experts},
                                                            {"topK", plan.method.top_k},
                                                            {"adapterDim", plan.method.adapter_dim},
                                                            {"adapterScale", plan.method.adapter_scale}}
                                                     : Json(nullptr)},
              {"bosIds", config.bos_ids},
              {"eosIds", config.eos_ids}}
      .dump();
}

}  // namespace caravan
