// The training loop: batch -> forward and backward of each micro-batch -> norm -> clip -> schedule -> AdamW.
#include <chrono>
#include <cmath>
#include <optional>

#include "engine/checkpoint/checkpoint_tensors.h"
#include "engine/checkpoint/checkpoint_writer.h"
#include "engine/checkpoint/resume.h"
#include "engine/optim/schedule.h"
#include "engine/platform/memory.h"
#include "engine/train/evaluation.h"
#include "engine/train/train_options_json.h"
#include "engine/train/train_step.h"
#include "engine/train/trainer.h"
#include "kernels/optimizer.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

/// Skipped steps in a row after which a run has diverged.
constexpr int64_t most_skips_in_a_row = 3;

template <typename Call, typename... Values>
void tell(const Call& call, const Values&... values) {
  if (call) call(values...);
}

class StepClock {
 public:
  double ms() const { return since(start_) - paused_ms_; }
  /// Runs `wait`, whose time does not count.
  template <typename Wait>
  void pause(Wait wait) {
    const auto start = Clock::now();
    wait();
    paused_ms_ += since(start);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  }
  Clock::time_point start_ = Clock::now();
  double paused_ms_ = 0.0;
};

/// A fresh run must not write among another run's checkpoints: the newest of them would be taken for its own.
void refuse_used_folder(const TrainOptions& options) {
  const std::vector<CheckpointInfo> found = find_checkpoints(options.checkpoint_dir);
  if (found.empty()) return;
  throw EngineError("bad_option", "checkpointDir is " + options.checkpoint_dir + ", which already holds " +
                                      checkpoint_name(found.front().step) +
                                      "; set resumeFrom to go on with that run, or choose another folder");
}

class TrainingRun {
 public:
  TrainingRun(const TrainOptions& options, const TrainListener& listener, TrainControl& control)
      : options_(options), listener_(listener), control_(control) {}

  TrainResult run() {
    enter("loading");
    check_train_options(options_);
    open();
    StepPlan plan(*session_.train, options_);
    total_steps_ = plan.total_steps();
    const int64_t warmup = warmup_steps(options_.warmup_ratio, total_steps_);
    if (progress_.step == 0 && !control_.stopping()) evaluate();

    enter("training");
    while (progress_.step < total_steps_ && !control_.stopping()) {
      StepClock clock;
      const int64_t step = progress_.step + 1;
      std::optional<StepBatch> batch =
          enqueue_gradients(session_, options_, plan.rows(step), step, [&] { return wait_while_paused(clock); });
      if (!batch) break;  // discarded

      // Where loss or norm is not finite, which the device alone knows so far, the update changes nothing.
      const float lr = learning_rate(options_.schedule, options_.lr, step, warmup, total_steps_);
      const float* scale = session_.clip->measure(session_.exec, *session_.set, session_.decoder->squared_losses(),
                                                  options_.max_grad_norm);
      session_.optimizer->update(session_.exec, *session_.set, lr, scale, progress_.updates + 1);

      const StepGradients gradients = collect_gradients(session_, options_, std::move(*batch));
      const double norm = session_.clip->norm(session_.exec);
      const bool skipped = !std::isfinite(gradients.loss) || !std::isfinite(norm);
      progress_.consecutive_skips = skipped ? progress_.consecutive_skips + 1 : 0;
      if (!skipped) progress_.updates += 1;
      progress_.step = step;
      report(gradients, plan, lr, norm, skipped, clock.ms());
      if (progress_.consecutive_skips >= most_skips_in_a_row) end_diverged();

      const bool last = step == total_steps_;
      if (session_.validation && (last || due(options_.eval_steps))) evaluate();
      // What a streak of skipped steps stands on is in doubt; the checkpoint before it stays the newest.
      if (last || (due(options_.save_steps) && !skipped)) save();
      announce(checkpoints_->poll());
    }
    return finish();
  }

 private:
  void open() {
    std::optional<VerifiedCheckpoint> resumed;
    if (options_.resume_from.empty()) {
      refuse_used_folder(options_);
    } else {
      resumed = newest_verified_checkpoint(
          options_.resume_from, [&](const std::string& message) { tell(listener_.on_log, "warning", message); });
      options_.resume_from = resumed->path;
    }
    checkpoints_.emplace(options_.checkpoint_dir, options_.keep_checkpoints);
    session_ = open_training_session(options_, [this](int64_t done, int64_t total) { tell_loading(done, total); });
    if (resumed) {
      check_resumable(*resumed, options_, session_.train->rows(), session_.train->tokens());
      read_trainable_values(session_.exec, resumed->path, *session_.set);
      read_optimizer_state(session_.exec, resumed->path, *session_.optimizer);
      progress_ = resumed->manifest.progress;
      saved_step_ = progress_.step;
      newest_ = resumed->path;
      tell(listener_.on_log, "info", "resumed from " + resumed->path);
    } else {
      progress_.step_zero_difference = session_.step_zero_difference;
      progress_.quantization_difference = session_.quantization_difference;
    }
    tell(listener_.on_opened, SessionOpened{progress_.step_zero_difference, progress_.quantization_difference});
  }

  void tell_loading(int64_t done, int64_t total) {
    constexpr auto apart = std::chrono::milliseconds(200);
    const auto now = std::chrono::steady_clock::now();
    if (done < total && now - loading_told_ < apart) return;
    loading_told_ = now;
    tell(listener_.on_loading, done, total);
  }

  /// Before each micro-batch; false when the step under way is to be thrown away.
  bool wait_while_paused(StepClock& clock) {
    if (control_.paused()) {
      enter("paused");
      clock.pause([&] { control_.wait_while_paused(); });
      if (!control_.discard()) enter("training");
    }
    return !control_.discard();
  }

  bool due(int64_t every) const { return every > 0 && progress_.step % every == 0; }

  void evaluate() {
    if (!session_.validation) return;
    enter("evaluating");
    const EvaluationMetrics metrics = evaluate_shard(*session_.decoder, *session_.validation, options_, progress_.step);
    evaluated_step_ = progress_.step;
    held_out_loss_ = metrics.loss;
    tell(listener_.on_evaluation, metrics);
    enter("training");
  }

  void report(const StepGradients& gradients, const StepPlan& plan, float lr, double norm, bool skipped, double ms) {
    StepMetrics metrics;
    metrics.step = progress_.step;
    metrics.total_steps = total_steps_;
    metrics.epoch = plan.epochs_after(progress_.step);
    metrics.loss = gradients.loss;
    metrics.loss_by_source = gradients.by_source;
    metrics.balance_loss = gradients.balance_loss;
    metrics.balance_grad_norm = gradients.balance_grad_norm;
    metrics.lr = lr;
    metrics.grad_norm = norm;
    metrics.skipped = skipped;
    metrics.tokens = gradients.batch.tokens;
    metrics.target_tokens = gradients.batch.target_tokens;
    metrics.padding_tokens = gradients.batch.padding_tokens;
    metrics.step_ms = ms;
    metrics.tokens_per_second = static_cast<double>(metrics.tokens) * 1000.0 / ms;
    metrics.memory_bytes = peak_resident_bytes();
    metrics.expert_shares = gradients.expert_shares;
    metrics.rows = gradients.batch.rows;
    metrics.row_losses = gradients.row_losses;
    tell(listener_.on_step, metrics);
    if (skipped) {
      tell(listener_.on_log, "warning",
           "step " + std::to_string(progress_.step) + " was skipped: loss " + std::to_string(metrics.loss) +
               ", gradient norm " + std::to_string(norm));
    }
  }

  /// A weight that overflowed poisons every later step: such a state is not worth a checkpoint's place.
  bool weights_are_finite() const {
    const DeviceBuffer squared(session_.exec.device, sizeof(double));
    for (const Parameter& parameter : session_.set->parameters()) {
      squared_norm_add(session_.exec, squared.as<double>(), parameter.value, parameter.count);
    }
    double sum = 0.0;
    download(session_.exec, &sum, squared.data(), sizeof sum);
    return std::isfinite(sum);
  }

  void save() {
    if (!weights_are_finite()) {
      tell(listener_.on_log, "warning",
           "no checkpoint of step " + std::to_string(progress_.step) + ": a weight is not finite");
      return;
    }
    CheckpointManifest manifest;
    manifest.progress = progress_;
    manifest.total_steps = total_steps_;
    manifest.rows = session_.train->rows();
    manifest.tokens = session_.train->tokens();
    if (evaluated_step_ == progress_.step) manifest.held_out_loss = held_out_loss_;
    manifest.defining = defining_options(options_);
    manifest.identity = options_.identity;
    announce(checkpoints_->write(session_.exec, trainable_tensors(*session_.set),
                                 optimizer_tensors(*session_.optimizer), std::move(manifest)));
    saved_step_ = progress_.step;
  }

  void announce(const std::optional<CheckpointWritten>& written) {
    if (!written) return;
    newest_ = written->path;
    tell(listener_.on_checkpoint, *written);
  }

  [[noreturn]] void end_diverged() {
    announce(checkpoints_->finish());
    const std::string kept =
        newest_.empty() ? "no checkpoint was written before" : "the last good checkpoint is " + newest_;
    throw EngineError("diverged", "loss or gradient norm was not finite in steps " +
                                      std::to_string(progress_.step - most_skips_in_a_row + 1) + " to " +
                                      std::to_string(progress_.step) + "; lower lr, or warm up longer; " + kept);
  }

  TrainResult finish() {
    const bool finished = progress_.step == total_steps_;
    if (!control_.discard() && progress_.step > 0 && saved_step_ != progress_.step) save();
    enter("saving");
    announce(checkpoints_->finish());
    if (saved_step_ == progress_.step && progress_.consecutive_skips == 0) checkpoints_->prune(progress_.step);
    enter("finished");
    TrainResult result;
    result.reason = finished ? "finished" : "stopped";
    result.step = progress_.step;
    result.total_steps = total_steps_;
    result.checkpoint = newest_;
    result.step_zero_difference = progress_.step_zero_difference;
    result.quantization_difference = progress_.quantization_difference;
    return result;
  }

  void enter(const std::string& phase) {
    if (phase != phase_) tell(listener_.on_phase, phase);
    phase_ = phase;
  }

  TrainOptions options_;
  const TrainListener& listener_;
  TrainControl& control_;
  std::optional<CheckpointWriter> checkpoints_;
  TrainingSession session_;
  RunProgress progress_;
  int64_t total_steps_ = 0;
  int64_t saved_step_ = 0;
  int64_t evaluated_step_ = -1;
  double held_out_loss_ = 0.0;
  std::string newest_;
  std::string phase_;
  std::chrono::steady_clock::time_point loading_told_;
};

}  // namespace

TrainResult run_training(const TrainOptions& options, const TrainListener& listener, TrainControl& control) {
  return TrainingRun(options, listener, control).run();
}

}  // namespace caravan
