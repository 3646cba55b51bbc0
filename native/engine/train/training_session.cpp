#include "engine/train/training_session.h"

#include "engine/model/stored_experts.h"
#include "engine/platform/error.h"
#include "engine/train/step_zero.h"

namespace caravan {

namespace {

/// Above this size the unquantised weights are not loaded for the sake of a comparison.
constexpr int64_t largest_unquantised_bytes = int64_t{4} << 30;

std::vector<float> logits_of_base(const TrainingSession& session, std::shared_ptr<const BaseModel> base,
                                  const TrainOptions& options, const MicroBatch& batch) {
  const auto model = std::make_shared<Model>(session.exec, session.config, std::move(base), nullptr, options.seq_len);
  return sample_logits(session.exec, model, options.compute_dtype, batch);
}

/// The same weights unquantised: what NF4 itself costs.
std::vector<float> logits_unquantised(const TrainingSession& session, const TrainOptions& options,
                                      const MicroBatch& batch) {
  BaseOptions dense = base_options(options);
  dense.dtype = options.compute_dtype == DType::f32 ? BaseDType::f32 : BaseDType::bf16;
  if (!compares_unquantised(session.config, options)) return {};
  return logits_of_base(session, load_base_model(session.exec, options.model_dir, dense), options, batch);
}

std::shared_ptr<const BaseModel> load_base(const TrainingSession& session, const TrainOptions& options,
                                           const std::function<void(int64_t, int64_t)>& loading) {
  if (options.random_init) {
    return make_random_base_model(session.exec, session.config, options.seed, base_options(options));
  }
  return load_base_model(session.exec, options.model_dir, base_options(options), loading);
}

/// `full` and `upcycle` need no base when every value comes from a checkpoint.
bool needs_base(const TrainOptions& options) {
  return options.resume_from.empty() || !options.method.trains_everything();
}

void check_lengths(const TrainOptions& options, const ModelConfig& config) {
  if (options.seq_len <= config.max_sequence()) return;
  throw EngineError("bad_option", "seqLen is " + std::to_string(options.seq_len) + ", but the model reads at most " +
                                      std::to_string(config.max_sequence()) + " tokens; lower seqLen");
}

}  // namespace

bool keeps_copies(const TrainOptions& options) {
  return options.device == Device::cuda && options.compute_dtype == DType::bf16 && options.train_dtype == DType::f32;
}

BaseOptions base_options(const TrainOptions& options) {
  return {options.base_dtype, options.double_quant, options.compute_dtype};
}

bool compares_unquantised(const ModelConfig& config, const TrainOptions& options) {
  return config.parameter_count() * static_cast<int64_t>(size_of(options.compute_dtype)) <= largest_unquantised_bytes;
}

DecoderOptions decoder_options(const TrainOptions& options) {
  DecoderOptions decoder;
  decoder.activation = options.compute_dtype;
  decoder.recompute = options.recompute;
  decoder.recompute_layers = options.recompute_layers;
  decoder.max_tokens = options.bins_per_micro_batch() * options.seq_len;
  decoder.max_targets = decoder.max_tokens;
  decoder.micro_batches = (options.batch_size + options.bins_per_micro_batch() - 1) / options.bins_per_micro_batch();
  return decoder;
}

TrainingSession open_training_session(const TrainOptions& options,
                                      const std::function<void(int64_t, int64_t)>& loading) {
  TrainingSession session;
  session.device = ComputeDevice(options.device, options.threads, options.device_index);
  session.exec = session.device.exec();
  session.config = read_model_config(options.model_dir);
  refuse_stored_experts(session.config, options.model_dir);
  check_lengths(options, session.config);
  session.train = std::make_unique<TokenShard>(open_shard(options.train_shard, session.config, options));
  if (!options.validation_shard.empty()) {
    session.validation = std::make_unique<TokenShard>(open_shard(options.validation_shard, session.config, options));
  }

  StepPlan plan(*session.train, options);
  const StepBatch first = make_step_batch(*session.train, plan.rows(1), options);
  const MicroBatch& sample = first.micro_batches.front();
  const bool fresh = options.resume_from.empty();

  std::vector<float> unquantised;
  if (fresh && options.base_dtype == BaseDType::nf4) unquantised = logits_unquantised(session, options, sample);
  std::shared_ptr<const BaseModel> base = needs_base(options) ? load_base(session, options, loading) : nullptr;
  std::vector<float> stored;
  if (fresh) stored = logits_of_base(session, base, options, sample);
  if (!unquantised.empty()) session.quantization_difference = largest_logit_difference(stored, unquantised);

  session.set = std::make_shared<TrainableSet>(options.device, session.config, options.method, options.train_dtype);
  if (base) session.set->initialise(session.exec, *base, options.seed);
  if (keeps_copies(options)) session.set->allocate_copies();
  session.model = std::make_shared<Model>(session.exec, session.config, std::move(base), session.set, options.seq_len);
  if (fresh) {
    const std::vector<float> crafted = sample_logits(session.exec, session.model, options.compute_dtype, sample);
    session.step_zero_difference = largest_logit_difference(crafted, stored);
  }
  session.set->allocate_gradients();
  session.decoder = std::make_unique<Decoder>(session.exec, session.model, decoder_options(options));

  AdamWSettings settings;
  settings.kind = parse_adamw_kind(options.optimizer);
  settings.beta1 = options.beta1;
  settings.beta2 = options.beta2;
  settings.eps = options.eps;
  settings.weight_decay = options.weight_decay;
  settings.seed = options.seed;
  session.optimizer = std::make_unique<AdamW>(session.exec, *session.set, settings);
  session.clip = std::make_unique<GradientClip>(options.device);
  return session;
}

}  // namespace caravan
