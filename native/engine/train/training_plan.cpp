#include "engine/train/training_plan.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "engine/model/stored_experts.h"
#include "engine/optim/schedule.h"
#include "engine/train/training_session.h"

namespace caravan {

namespace {

/// Bits of an NF4 weight, its share of the scales included.
double nf4_bytes(double count, bool double_quant) {
  const double scale = double_quant ? 1.0 + 4.0 / nf4_nested_block : 4.0;
  return count * 0.5 + count / nf4_block * scale;
}

/// What the base keeps in memory beside a set that does not replace it.
int64_t base_bytes(const ModelConfig& config, const TrainOptions& options) {
  if (options.method.trains_everything()) return 0;
  const int64_t dense = config.vocab_size * config.hidden_size * (config.tied_embeddings ? 1 : 2);
  int64_t projections = 0;
  for (const Proj proj : all_projections) projections += projection_rows(config, proj) * projection_cols(config, proj);
  projections *= config.num_layers;
  const int64_t vectors = config.parameter_count() - dense - projections;
  const double bf16_or_f32 = options.base_dtype == BaseDType::f32 ? 4.0 : 2.0;
  const double count = static_cast<double>(projections);
  if (options.base_dtype != BaseDType::nf4) {
    return static_cast<int64_t>((count + static_cast<double>(dense)) * bf16_or_f32) + 4 * vectors;
  }
  return static_cast<int64_t>(nf4_bytes(count, options.double_quant)) +
         dense * static_cast<int64_t>(size_of(options.compute_dtype)) + 4 * vectors;
}

void count_parameters(TrainingPlan& plan, const ModelConfig& config, const std::vector<Parameter>& parameters) {
  plan.base_parameters = config.parameter_count();
  int64_t replaced = 0, added = 0;
  for (const Parameter& parameter : parameters) {
    plan.trainable_parameters += parameter.count;
    switch (parameter.group) {
      case ParameterGroup::lora: plan.lora_parameters += parameter.count; break;
      case ParameterGroup::adapter: plan.adapter_parameters += parameter.count; break;
      case ParameterGroup::router: plan.router_parameters += parameter.count; break;
      case ParameterGroup::expert:
        added += parameter.count;
        replaced += parameter.count / parameter.shape[0];  // one copy of the FFN was there before
        break;
      case ParameterGroup::base: break;
    }
  }
  plan.total_parameters =
      plan.base_parameters - replaced + added + plan.lora_parameters + plan.adapter_parameters + plan.router_parameters;
}

int64_t value_bytes(const std::vector<Parameter>& parameters, DType train_dtype) {
  int64_t total = 0;
  for (const Parameter& parameter : parameters) {
    total += parameter.count * static_cast<int64_t>(parameter.shape.size() == 1 ? 4 : size_of(train_dtype));
  }
  return total;
}

/// The longest rows of the shard, as many as one micro-batch may hold.
MicroBatch longest_micro_batch(const TokenShard& shard, const TrainOptions& options) {
  std::vector<int32_t> rows(static_cast<size_t>(shard.rows()));
  std::iota(rows.begin(), rows.end(), 0);
  std::stable_sort(rows.begin(), rows.end(),
                   [&](int32_t a, int32_t b) { return shard.row_length(a) > shard.row_length(b); });
  MicroBatch batch;
  const int64_t most = std::min(static_cast<int64_t>(rows.size()), options.batch_size);
  for (int32_t i = 0; i < most; ++i) {
    const ShardRow row = shard.row(rows[static_cast<size_t>(i)]);
    const int64_t length = static_cast<int64_t>(row.ids.size());
    if (batch.size() + length > decoder_options(options).max_tokens) break;
    batch.add(row.ids.data(), row.targets.data(), length, i);
  }
  return batch;
}

}  // namespace

TrainingPlan plan_training(const TrainOptions& options) {
  check_train_options(options);
  const ModelConfig config = read_model_config(options.model_dir);
  refuse_stored_experts(config, options.model_dir);
  const TokenShard shard = open_shard(options.train_shard, config, options);
  const std::vector<Parameter> parameters = list_parameters(config, options.method);
  TrainingPlan plan;
  count_parameters(plan, config, parameters);

  const int64_t values = value_bytes(parameters, options.train_dtype);
  const int64_t optimizer = static_cast<int64_t>(AdamW::planned_bytes(parameters, options.optimizer == "adamw8bit"));
  const DecoderMemory memory =
      plan_decoder_memory(config, options.method, options.train_dtype, decoder_options(options));
  plan.memory = {{"base", base_bytes(config, options)},
                 {"trainable", values + (keeps_copies(options) ? values / 2 : 0)},
                 {"gradients", values},
                 {"optimizer", optimizer},
                 {"activations", static_cast<int64_t>(memory.activations)},
                 {"workspace", static_cast<int64_t>(memory.workspace)},
                 {"logits", static_cast<int64_t>(memory.logits)},
                 {"snapshot", values + optimizer}};
  for (const MemoryItem& item : plan.memory) plan.total_memory_bytes += item.bytes;
  plan.checkpoint_bytes = values + optimizer;

  const StepPlan steps(shard, options);
  plan.rows = shard.rows();
  plan.steps = steps.total_steps();
  plan.warmup_steps = warmup_steps(options.warmup_ratio, plan.steps);
  return plan;
}

ProbeResult probe_training(const TrainOptions& options) {
  check_train_options(options);
  TrainingSession session = open_training_session(options);
  const MicroBatch batch = longest_micro_batch(*session.train, options);
  StepPlace place;
  place.loss_scale = 1.0f / static_cast<float>(std::max<int64_t>(batch.target_count(), 1));
  const auto micro_batch = [&] {
    const auto start = std::chrono::steady_clock::now();
    session.decoder->forward_backward(batch.tokens(), batch.targets(), place);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  };
  micro_batch();  // touches every page
  const double forward_backward_ms = micro_batch();
  const auto start = std::chrono::steady_clock::now();
  session.optimizer->update(session.exec, *session.set, 0.0f, 0.0f, 1);
  const double update_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();

  const double tokens = static_cast<double>(session.train->tokens());
  const double rows = static_cast<double>(session.train->rows());
  const double step_tokens =
      tokens / rows * static_cast<double>(std::min<int64_t>(options.batch_size, session.train->rows()));
  ProbeResult probe;
  probe.step_ms = forward_backward_ms * step_tokens / static_cast<double>(batch.size()) + update_ms;
  probe.tokens_per_second = step_tokens * 1000.0 / probe.step_ms;
  return probe;
}

}  // namespace caravan
