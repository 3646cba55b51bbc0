// The same training run on the CPU and on a GPU, step by step:
//
//   twin_runs_bench OPTIONS.json [--steps 100] [--device cuda] [--json FILE]
//
// OPTIONS.json: what caravan_train takes; twin_runs_demo.json is demo/run.yaml's, to be run in a folder with demo/base and the
// shards of the mix that `caravan demo` builds (its home's demo/mix/shards). Prints the losses of every tenth step and ends with one JSON line: the largest
// relative difference of a step's loss, and that of the means of the last 20. Exit code 1 where they are above 1 % and 0.3 %.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/model/compute_device.h"
#include "engine/train/train_options_json.h"
#include "engine/train/trainer.h"

using namespace caravan;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

namespace {

struct Run {
  std::vector<double> losses;
  double tokens_per_second = 0.0;
  double held_out = 0.0;
};

Run train(TrainOptions options, const std::string& device_name) {
  const DevicePlace place = parse_device(device_name, "--device");
  options.device = place.device;
  options.device_index = place.index;
  options.checkpoint_dir =
      (fs::temp_directory_path() / ("caravan-twin-" + std::string(place.device == Device::cpu ? "cpu" : "gpu")))
          .string();
  fs::remove_all(options.checkpoint_dir);
  Run run;
  double tokens = 0.0, seconds = 0.0;
  TrainListener listener;
  listener.on_step = [&](const StepMetrics& step) {
    run.losses.push_back(step.loss);
    tokens += static_cast<double>(step.tokens);
    seconds += step.step_ms / 1000.0;
  };
  listener.on_evaluation = [&](const EvaluationMetrics& evaluation) { run.held_out = evaluation.loss; };
  TrainControl control;
  run_training(options, listener, control);
  fs::remove_all(options.checkpoint_dir);
  run.tokens_per_second = tokens / seconds;
  return run;
}

double mean_of_last(const std::vector<double>& values, size_t count) {
  double sum = 0.0;
  for (size_t i = values.size() - count; i < values.size(); ++i) sum += values[i];
  return sum / static_cast<double>(count);
}

}  // namespace

int main(int argc, char** argv) try {
  std::string file, device = "cuda", json;
  int64_t steps = 100;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (!name.starts_with("--")) {
      file = name;
      continue;
    }
    const std::string value = i + 1 < argc ? argv[++i] : "";
    if (name == "--steps") steps = std::stoll(value);
    if (name == "--device") device = value;
    if (name == "--json") json = value;
  }
  std::ifstream stream(file);
  if (!stream) throw EngineError("bad_option", "give OPTIONS.json, as caravan_train takes it");
  std::stringstream text;
  text << stream.rdbuf();
  TrainOptions options = parse_train_options(text.str(), file);
  options.max_steps = steps;
  const Run cpu = train(options, "cpu"), gpu = train(options, device);
  double largest = 0.0;
  for (size_t i = 0; i < cpu.losses.size(); ++i) {
    const double difference = std::fabs(gpu.losses[i] - cpu.losses[i]) / cpu.losses[i];
    largest = std::max(largest, std::isfinite(difference) ? difference : INFINITY);
    if ((i + 1) % 10 == 0)
      std::printf("step %zu: cpu %.5f, %s %.5f\n", i + 1, cpu.losses[i], device.c_str(), gpu.losses[i]);
  }
  const size_t last = std::min<size_t>(20, cpu.losses.size());
  const double cpu_mean = mean_of_last(cpu.losses, last), gpu_mean = mean_of_last(gpu.losses, last);
  const double of_means = std::fabs(gpu_mean - cpu_mean) / cpu_mean;
  const bool held = largest <= 0.01 && of_means <= 0.003 && gpu.losses.size() == cpu.losses.size();
  const Json result = {
      {"bench", "twin-runs"},
      {"steps", cpu.losses.size()},
      {"largestLossDifference", largest},
      {"lastMeansDifference", of_means},
      {"cpu", {{"mean", cpu_mean}, {"heldOut", cpu.held_out}, {"tokensPerSecond", cpu.tokens_per_second}}},
      {"gpu", {{"mean", gpu_mean}, {"heldOut", gpu.held_out}, {"tokensPerSecond", gpu.tokens_per_second}}},
      {"held", held}};
  std::printf("%s\n", result.dump().c_str());
  if (!json.empty()) std::ofstream(json) << result.dump(1) << "\n";
  return held ? 0 : 1;
} catch (const EngineError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
