#include "engine/infer/inference_model.h"

#include <algorithm>

#include "engine/checkpoint/trained_weights.h"
#include "engine/infer/answer.h"
#include "engine/infer/rounded_set.h"
#include "engine/infer/shared_base.h"
#include "engine/infer/turn_queue.h"
#include "engine/model/compute_device.h"
#include "engine/model/stored_experts.h"
#include "engine/platform/error.h"
#include "kernels/transfer.h"

namespace caravan {

InferenceModel::InferenceModel(std::shared_ptr<const Model> model, DType compute_dtype, int threads)
    : model_(std::move(model)),
      compute_dtype_(compute_dtype),
      execs_(model_->device(), threads),
      turns_(std::make_unique<TurnQueue>(execs_, model_, compute_dtype)) {}

InferenceModel::~InferenceModel() = default;

std::shared_ptr<InferenceModel> InferenceModel::open(const OpenModelOptions& options,
                                                     const std::function<void(int64_t, int64_t)>& progress) {
  if (options.threads < 0) throw EngineError("bad_option", "threads must be 0 (one per core) or above");
  const ComputeDevice device(options.device, options.threads);
  const Exec& exec = device.exec();
  const ModelConfig config = read_model_config(options.model_dir);
  std::shared_ptr<TrainableSet> set;
  if (!options.checkpoint_dir.empty()) {
    refuse_stored_experts(config, options.model_dir);
    set = load_trained_weights(exec, options.checkpoint_dir, config);
  } else if (config.experts.any()) {
    const DType dtype = options.base_dtype == BaseDType::f32 ? DType::f32 : DType::bf16;
    set = load_stored_experts(exec, *ModelSource::open(options.model_dir), dtype, progress);
  }
  // On the CPU the products round them as they pack: there f32 costs no pass of its own.
  const bool rounds = set && options.device == Device::cuda && options.compute_dtype == DType::bf16;
  if (rounds) set = round_for_bf16(exec, config, std::move(set));
  std::shared_ptr<const BaseModel> base;
  if (!set || !set->method().trains_everything()) {
    base = open_shared_base(exec, options.model_dir, {options.base_dtype, options.double_quant, DType::bf16}, progress);
  }
  const auto model = std::make_shared<const Model>(exec, config, base, set, config.max_sequence());
  synchronize(exec);  // calls read it from other streams
  return std::make_shared<InferenceModel>(model, options.compute_dtype, options.threads);
}

size_t InferenceModel::memory_bytes() const {
  size_t total = held_ + turns_->memory_bytes() + model_->rope().storage.bytes();
  if (model_->base() != nullptr) total += model_->base()->bytes();
  if (model_->set() != nullptr) total += model_->set()->value_bytes();
  return total;
}

int64_t InferenceModel::most_answers_together() { return turns_->most_together(); }

void InferenceModel::check_row(std::span<const int32_t> row, size_t index) const {
  const std::string name = "rows[" + std::to_string(index) + "]";
  if (row.empty()) throw EngineError("bad_option", name + " is empty; it needs at least one token");
  if (static_cast<int64_t>(row.size()) > context_length()) {
    throw EngineError("bad_option", name + " has " + std::to_string(row.size()) +
                                        " tokens, but the model's context is " + std::to_string(context_length()) +
                                        "; shorten it");
  }
  check_ids(row, name, config().vocab_size);
}

}  // namespace caravan
