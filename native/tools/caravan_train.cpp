// Trains as the options file says (the fields of TrainOptions in core/engine/AddonTypes.ts): progress to stderr, metrics
// as JSON lines to a file. SIGINT and SIGTERM end the run after the step under way, with a checkpoint.
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>

#include "command_line.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/model/compute_device.h"
#include "engine/model/save_model.h"
#include "engine/platform/error.h"
#include "engine/train/train_options_json.h"
#include "engine/train/trainer.h"
#include "engine/train/training_plan.h"

using namespace caravan;

namespace {

const char* const usage =
    "caravan_train OPTIONS.json [--metrics FILE.jsonl] [--save-model DIR] [--max-minutes M] [--resume CHECKPOINT]\n"
    "         [--threads N] [--device cpu|cuda|cuda:1]\n"
    "  --save-model   at the end, stopped or finished: the dense model of method full as bf16 safetensors\n"
    "  --max-minutes  stop with a checkpoint after this time (and let --save-model write it)\n"
    "  --resume       a checkpoint folder, or the folder that holds the checkpoints: their newest\n"
    "Exit codes: 0 finished, 4 stopped before the last step.";

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

TrainControl* control_of_signals = nullptr;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// JSON has no NaN: what is not finite becomes null.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json sources_of(const std::vector<SourceLoss>& sources) {
  Json list = Json::array();
  for (const SourceLoss& one : sources) {
    list.push_back(
        {{"source", one.source}, {"loss", number(one.loss)}, {"targetTokens", one.target_tokens}, {"rows", one.rows}});
  }
  return list;
}

Json json_of(const StepMetrics& m) {
  return {{"type", "step"},
          {"step", m.step},
          {"totalSteps", m.total_steps},
          {"epoch", m.epoch},
          {"loss", number(m.loss)},
          {"lossBySource", sources_of(m.loss_by_source)},
          {"balanceLoss", number(m.balance_loss)},
          {"balanceGradNorm", number(m.balance_grad_norm)},
          {"lr", m.lr},
          {"gradNorm", number(m.grad_norm)},
          {"skipped", m.skipped},
          {"tokens", m.tokens},
          {"targetTokens", m.target_tokens},
          {"paddingTokens", m.padding_tokens},
          {"stepMs", m.step_ms},
          {"tokensPerSecond", m.tokens_per_second},
          {"memoryBytes", m.memory_bytes}};
}

Json json_of(const EvaluationMetrics& m) {
  return {{"type", "evaluation"},
          {"step", m.step},
          {"loss", number(m.loss)},
          {"bySource", sources_of(m.by_source)},
          {"evaluationMs", m.evaluation_ms}};
}

/// What happens, for people and for programs; ends the run when its time is up.
class Journal {
 public:
  Journal(const std::string& metrics_file, double max_seconds, TrainControl& control)
      : max_seconds_(max_seconds), control_(control) {
    if (metrics_file.empty()) return;
    metrics_.open(metrics_file, std::ios::app);
    if (!metrics_) throw EngineError("bad_file", metrics_file + ": cannot be written");
  }

  TrainListener listener() {
    TrainListener listener;
    listener.on_phase = [](const std::string& phase) { std::fprintf(stderr, "%s\n", phase.c_str()); };
    listener.on_step = [this](const StepMetrics& metrics) { step(metrics); };
    listener.on_evaluation = [this](const EvaluationMetrics& metrics) {
      write(json_of(metrics));
      std::fprintf(stderr, "held-out loss at step %lld: %.4f (%.1f s)\n", static_cast<long long>(metrics.step),
                   metrics.loss, metrics.evaluation_ms / 1000.0);
    };
    listener.on_checkpoint = [this](const CheckpointWritten& written) {
      write({{"type", "checkpoint"}, {"step", written.step}, {"bytes", written.bytes}});
      std::fprintf(stderr, "wrote %s\n", written.path.c_str());
    };
    listener.on_log = [](const std::string& level, const std::string& message) {
      std::fprintf(stderr, "%s: %s\n", level.c_str(), message.c_str());
    };
    return listener;
  }

 private:
  void step(const StepMetrics& metrics) {
    write(json_of(metrics));
    training_ms_ += metrics.step_ms;
    ++steps_;
    const double left_seconds =
        training_ms_ / 1000.0 / static_cast<double>(steps_) * static_cast<double>(metrics.total_steps - metrics.step);
    const bool first_ones = steps_ <= 3;
    if (first_ones || seconds_since(shown_) >= 2.0 || metrics.step == metrics.total_steps || metrics.skipped) {
      shown_ = Clock::now();
      std::fprintf(stderr, "step %lld/%lld  loss %.4f  norm %.3f  lr %.2e  %.0f tokens/s  %.1f min left\n",
                   static_cast<long long>(metrics.step), static_cast<long long>(metrics.total_steps), metrics.loss,
                   metrics.grad_norm, metrics.lr, metrics.tokens_per_second, left_seconds / 60.0);
    }
    if (max_seconds_ > 0.0 && seconds_since(started_) >= max_seconds_ && !control_.stopping()) {
      std::fprintf(stderr, "the time is up\n");
      control_.request_stop();
    }
  }

  void write(const Json& line) {
    if (metrics_.is_open()) metrics_ << line.dump() << std::endl;
  }

  double max_seconds_;
  TrainControl& control_;
  std::ofstream metrics_;
  Clock::time_point started_ = Clock::now();
  Clock::time_point shown_ = started_;
  double training_ms_ = 0.0;
  int64_t steps_ = 0;
};

TrainOptions read_options(const CommandLine& arguments) {
  if (arguments.plain().size() != 1) throw EngineError("bad_option", "name one file of options");
  const std::string& file = arguments.plain().front();
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw EngineError("bad_file", file + ": cannot be opened");
  TrainOptions options = parse_train_options({std::istreambuf_iterator<char>(stream), {}}, file);
  options.resume_from = arguments.text("resume", options.resume_from);
  options.threads = static_cast<int>(arguments.whole("threads", options.threads, 0));
  const DevicePlace place = parse_device(arguments.text("device", "cpu"), "--device");
  options.device = place.device;
  options.device_index = place.index;
  return options;
}

void tell_plan(const TrainOptions& options) {
  const TrainingPlan plan = plan_training(options);
  std::fprintf(stderr, "%lld parameters train, %lld rows, %lld steps, %lld MiB of memory, %lld MiB a checkpoint\n",
               static_cast<long long>(plan.trainable_parameters), static_cast<long long>(plan.rows),
               static_cast<long long>(plan.steps), static_cast<long long>(plan.memory.total >> 20),
               static_cast<long long>(plan.checkpoint_bytes >> 20));
}

int train(const CommandLine& arguments) {
  const TrainOptions options = read_options(arguments);
  const std::string model_to_save = arguments.text("save-model");
  if (!model_to_save.empty() && options.method.method != Method::full) {
    throw EngineError("bad_option", "--save-model writes a dense model, which only method full trains");
  }
  tell_plan(options);
  TrainControl control;
  control_of_signals = &control;
  for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, [](int) { control_of_signals->request_stop(); });

  Journal journal(arguments.text("metrics"), arguments.positive("max-minutes", 0.0) * 60.0, control);
  const TrainResult result = run_training(options, journal.listener(), control);
  if (!model_to_save.empty() && !result.checkpoint.empty()) {
    const ModelConfig config = read_model_config(options.model_dir);
    const auto set = load_checkpoint_weights(Exec(), result.checkpoint, config);
    save_dense_model(model_to_save, config, *set, DType::bf16);
    std::fprintf(stderr, "wrote %s\n", (std::filesystem::path(model_to_save) / "model.safetensors").c_str());
  }
  std::fprintf(stderr, "%s at step %lld of %lld\n", result.reason.c_str(), static_cast<long long>(result.step),
               static_cast<long long>(result.total_steps));
  return result.reason == "finished" ? 0 : 4;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(usage, [&] {
    return train(CommandLine(argc, argv, {"metrics", "save-model", "max-minutes", "resume", "threads", "device"}));
  });
}
