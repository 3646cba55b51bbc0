#include "engine/train/train_options_json.h"

#include <functional>

#include <nlohmann/json.hpp>

#include "engine/platform/error.h"

namespace caravan {

namespace {

using Json = nlohmann::ordered_json;

DType parse_dtype(const std::string& field, const std::string& name) {
  if (name == "f32") return DType::f32;
  if (name == "bf16") return DType::bf16;
  throw EngineError("bad_option", field + " is \"" + name + "\"; it must be f32 or bf16");
}

const char* dtype_name(DType dtype) { return dtype == DType::f32 ? "f32" : "bf16"; }

/// One row per field: how it is read and how it is written; `defining`: whether it decides a run's numbers.
struct Field {
  std::function<void(TrainOptions&, const Json&)> read;
  std::function<Json(const TrainOptions&)> write;
  bool defining = true;
};

template <typename T>
Field plain(T TrainOptions::*member, bool defining = true) {
  return {[member](TrainOptions& o, const Json& value) { o.*member = value.get<T>(); },
          [member](const TrainOptions& o) { return Json(o.*member); }, defining};
}

template <typename T>
Field of_method(T MethodOptions::*member) {
  return {[member](TrainOptions& o, const Json& value) { o.method.*member = value.get<T>(); },
          [member](const TrainOptions& o) { return Json(o.method.*member); }};
}

Field dtype_field(const char* name, DType TrainOptions::*member) {
  return {[=](TrainOptions& o, const Json& value) { o.*member = parse_dtype(name, value.get<std::string>()); },
          [=](const TrainOptions& o) { return Json(dtype_name(o.*member)); }};
}

const std::map<std::string, Field>& fields() {
  static const std::map<std::string, Field> table = {
      {"modelDir", plain(&TrainOptions::model_dir, false)},
      {"trainShard", plain(&TrainOptions::train_shard, false)},
      {"validationShard", plain(&TrainOptions::validation_shard, false)},
      {"checkpointDir", plain(&TrainOptions::checkpoint_dir, false)},
      {"resumeFrom", plain(&TrainOptions::resume_from, false)},
      {"method",
       {[](TrainOptions& o, const Json& value) { o.method.method = parse_method(value.get<std::string>()); },
        [](const TrainOptions& o) { return Json(method_name(o.method.method)); }}},
      {"baseDtype",
       {[](TrainOptions& o, const Json& value) { o.base_dtype = parse_base_dtype(value.get<std::string>()); },
        [](const TrainOptions& o) { return Json(base_dtype_name(o.base_dtype)); }}},
      {"doubleQuant", plain(&TrainOptions::double_quant)},
      {"computeDtype", dtype_field("computeDtype", &TrainOptions::compute_dtype)},
      {"trainDtype", dtype_field("trainDtype", &TrainOptions::train_dtype)},
      {"randomInit", plain(&TrainOptions::random_init)},
      {"loraRank", of_method(&MethodOptions::lora_rank)},
      {"loraAlpha", of_method(&MethodOptions::lora_alpha)},
      {"loraDropout", of_method(&MethodOptions::lora_dropout)},
      {"numExperts", of_method(&MethodOptions::num_experts)},
      {"topK", of_method(&MethodOptions::top_k)},
      {"adapterDim", of_method(&MethodOptions::adapter_dim)},
      {"adapterDropout", of_method(&MethodOptions::adapter_dropout)},
      {"adapterScale", of_method(&MethodOptions::adapter_scale)},
      {"balanceCoefficient", of_method(&MethodOptions::balance_coefficient)},
      {"batchSize", plain(&TrainOptions::batch_size)},
      {"microBatchSize", plain(&TrainOptions::micro_batch_size)},
      {"seqLen", plain(&TrainOptions::seq_len)},
      {"packing", plain(&TrainOptions::packing)},
      {"epochs", plain(&TrainOptions::epochs)},
      {"maxSteps", plain(&TrainOptions::max_steps)},
      {"lr", plain(&TrainOptions::lr)},
      {"schedule", plain(&TrainOptions::schedule)},
      {"warmupRatio", plain(&TrainOptions::warmup_ratio)},
      {"optimizer", plain(&TrainOptions::optimizer)},
      {"beta1", plain(&TrainOptions::beta1)},
      {"beta2", plain(&TrainOptions::beta2)},
      {"eps", plain(&TrainOptions::eps)},
      {"weightDecay", plain(&TrainOptions::weight_decay)},
      {"maxGradNorm", plain(&TrainOptions::max_grad_norm)},
      {"recompute", plain(&TrainOptions::recompute, false)},
      {"recomputeLayers", plain(&TrainOptions::recompute_layers, false)},
      {"seed", plain(&TrainOptions::seed)},
      {"evalSteps", plain(&TrainOptions::eval_steps, false)},
      {"saveSteps", plain(&TrainOptions::save_steps, false)},
      {"keepCheckpoints", plain(&TrainOptions::keep_checkpoints, false)},
      {"threads", plain(&TrainOptions::threads, false)},
      {"identity", plain(&TrainOptions::identity, false)},
  };
  return table;
}

}  // namespace

TrainOptions parse_train_options(const std::string& text, const std::string& file) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& error) {
    throw EngineError("bad_file", file + ": not valid JSON (" + error.what() + ")");
  }
  if (!json.is_object()) throw EngineError("bad_file", file + ": must hold one JSON object of training options");
  TrainOptions options;
  for (const auto& [name, value] : json.items()) {
    const auto field = fields().find(name);
    if (field == fields().end()) {
      throw EngineError("bad_option", file + ": " + name + " is no training option; remove or respell it");
    }
    try {
      field->second.read(options, value);
    } catch (const Json::exception&) {
      throw EngineError("bad_option", file + ": " + name + " is " + value.dump() + ", which is of the wrong type");
    }
  }
  return options;
}

std::map<std::string, std::string> defining_options(const TrainOptions& options) {
  std::map<std::string, std::string> result;
  for (const auto& [name, field] : fields()) {
    if (field.defining) result[name] = field.write(options).dump();
  }
  // Where the state lies decides no number.
  const std::string paged = "paged_";
  if (options.optimizer.starts_with(paged)) result["optimizer"] = Json(options.optimizer.substr(paged.size())).dump();
  return result;
}

}  // namespace caravan
