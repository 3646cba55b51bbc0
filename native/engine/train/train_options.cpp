#include "engine/train/train_options.h"

#include <cmath>
#include <sstream>

#include "engine/platform/error.h"
#include "engine/train/adamw.h"

namespace caravan {

namespace {

template <typename T>
void require(bool holds, const char* field, const T& value, const char* allowed) {
  if (holds) return;
  std::ostringstream message;
  message << field << " is " << value << "; it must be " << allowed;
  throw EngineError("bad_option", message.str());
}

void check_optimizer(const TrainOptions& o) {
  require(std::isfinite(o.lr) && o.lr > 0.0f, "lr", o.lr, "above 0");
  require(o.schedule == "constant" || o.schedule == "linear" || o.schedule == "cosine", "schedule", o.schedule,
          "constant, linear or cosine");
  require(o.warmup_ratio >= 0.0f && o.warmup_ratio <= 1.0f, "warmupRatio", o.warmup_ratio, "from 0 to 1");
  parse_adamw_kind(o.optimizer);
  require(o.beta1 >= 0.0f && o.beta1 < 1.0f, "beta1", o.beta1, "at least 0 and below 1");
  require(o.beta2 >= 0.0f && o.beta2 < 1.0f, "beta2", o.beta2, "at least 0 and below 1");
  require(o.eps > 0.0f, "eps", o.eps, "above 0");
  require(o.weight_decay >= 0.0f, "weightDecay", o.weight_decay, "0 or above");
  require(o.max_grad_norm >= 0.0f, "maxGradNorm", o.max_grad_norm, "0 (no clipping) or above");
}

}  // namespace

void check_train_options(const TrainOptions& o) {
  require(!o.model_dir.empty(), "modelDir", "empty", "the folder of a model");
  require(!o.train_shard.empty(), "trainShard", "empty", "a token shard");
  require(!o.checkpoint_dir.empty(), "checkpointDir", "empty", "a folder for checkpoints");
  require(o.method.method != Method::base, "method", "base", "pesc, lora, full or upcycle");
  check_method_options(o.method);
  if (o.method.trains_everything()) {
    require(o.base_dtype != BaseDType::nf4, "baseDtype", "nf4",
            "f32 or bf16 for full and upcycle: they train the base");
  }
  require(!o.random_init || o.method.method == Method::full, "randomInit", "true", "false unless method is full");
  require(o.batch_size >= 1, "batchSize", o.batch_size, "at least 1");
  require(o.micro_batch_size >= 1, "microBatchSize", o.micro_batch_size, "at least 1");
  require(o.seq_len >= 2, "seqLen", o.seq_len, "at least 2");
  require(o.epochs >= 1, "epochs", o.epochs, "at least 1");
  require(o.max_steps >= 0, "maxSteps", o.max_steps, "at least 1, or left out");
  require(o.recompute_layers >= 0, "recomputeLayers", o.recompute_layers, "at least 1, or left out for all");
  check_optimizer(o);
  require(o.eval_steps >= 0, "evalSteps", o.eval_steps, "0 or above");
  require(o.save_steps >= 0, "saveSteps", o.save_steps, "0 or above");
  require(o.keep_checkpoints >= 1, "keepCheckpoints", o.keep_checkpoints, "at least 1");
  require(o.threads >= 0, "threads", o.threads, "0 (one per core) or above");
}

}  // namespace caravan
