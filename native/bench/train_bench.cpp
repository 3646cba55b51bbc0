// Tokens per second of one training micro-batch over a model with random weights (speed does not depend on the values):
//
//   train_bench [--shape smollm2-135m] [--layers N] [--device cpu|cuda] [--method lora] [--base bf16] [--compute f32]
//               [--train-dtype f32] [--optimizer [paged_]adamw|adamw8bit] [--experts 8] [--top-k 2] [--adapter-dim 64]
//               [--rank 64] [--dropout 0.1] [--tokens 512] [--rows 4] [--recompute [--keep-outputs]] [--threads 0]
//               [--steps 3 | --seconds S] [--forward] [--times] [--json FILE]
//
// A step is: gradients to zero, forward, backward, the gradient norm, AdamW, over `rows` sequences of `tokens` tokens.
// --times (CUDA): three more steps with events around every operation, and where the time of the stream went.
// On the CPU the processor's seconds stand beside the clock's: on a machine with other work, the former say more.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench_shapes.h"
#include "engine/model/compute_device.h"
#include "engine/model/decoder.h"
#include "engine/train/adamw.h"
#include "engine/train/gradient_clip.h"
#include "engine/train/micro_batch.h"
#include "kernels/kernel_times.h"
#include "kernels/philox.h"
#include "kernels/random.h"
#include "kernels/transfer.h"

using namespace caravan;

namespace {

struct Settings {
  std::string shape = "smollm2-135m";
  int64_t layers = 0;
  Device device = Device::cpu;
  MethodOptions method;
  BaseDType base = BaseDType::bf16;
  DType compute = DType::f32;
  DType train_dtype = DType::f32;
  std::string optimizer = "adamw";
  int64_t tokens = 512;
  int64_t rows = 4;
  bool recompute = false;
  bool keep_outputs = false;
  int threads = 0;
  int64_t steps = 3;
  double seconds = 0.0;
  bool forward = false;
  bool times = false;
  std::string json;
};

DType parse_dtype(const std::string& name) { return name == "bf16" ? DType::bf16 : DType::f32; }

Settings parse(int argc, char** argv) {
  Settings settings;
  settings.method.method = Method::lora;
  settings.method.adapter_dim = 64;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--recompute") {
      settings.recompute = true;
      continue;
    }
    if (name == "--keep-outputs") {
      settings.keep_outputs = true;
      continue;
    }
    if (name == "--forward") {
      settings.forward = true;
      continue;
    }
    if (name == "--times") {
      settings.times = true;
      continue;
    }
    const std::string value = i + 1 < argc ? argv[++i] : "";
    if (name == "--shape") settings.shape = value;
    if (name == "--layers") settings.layers = std::stoll(value);
    if (name == "--device") settings.device = value == "cuda" ? Device::cuda : Device::cpu;
    if (name == "--steps") settings.steps = std::stoll(value);
    if (name == "--seconds") settings.seconds = std::stod(value);
    if (name == "--method") settings.method.method = parse_method(value);
    if (name == "--experts") settings.method.num_experts = std::stoll(value);
    if (name == "--top-k") settings.method.top_k = std::stoll(value);
    if (name == "--adapter-dim") settings.method.adapter_dim = std::stoll(value);
    if (name == "--rank") settings.method.lora_rank = std::stoll(value);
    if (name == "--dropout") settings.method.lora_dropout = settings.method.adapter_dropout = std::stof(value);
    if (name == "--base") settings.base = parse_base_dtype(value);
    if (name == "--compute") settings.compute = parse_dtype(value);
    if (name == "--train-dtype") settings.train_dtype = parse_dtype(value);
    if (name == "--optimizer") settings.optimizer = value;
    if (name == "--tokens") settings.tokens = std::stoll(value);
    if (name == "--rows") settings.rows = std::stoll(value);
    if (name == "--threads") settings.threads = std::stoi(value);
    if (name == "--json") settings.json = value;
  }
  return settings;
}

MicroBatch random_batch(const Settings& settings, int64_t vocab_size) {
  MicroBatch batch;
  for (int64_t row = 0; row < settings.rows; ++row) {
    std::vector<int32_t> ids;
    for (int64_t j = 0; j < settings.tokens; ++j) {
      const Philox4 random = philox(1, 0, static_cast<uint32_t>(j), static_cast<uint32_t>(row), 0, 0);
      ids.push_back(static_cast<int32_t>(random.word[0] % static_cast<uint32_t>(vocab_size)));
    }
    const std::vector<uint8_t> targets(ids.size(), 1);
    batch.add(ids.data(), targets.data(), settings.tokens, static_cast<int32_t>(row));
  }
  return batch;
}

/// Floating-point operations of a step that the method asks for, recomputation and quantisation not counted: a product
/// of m x k x n is 2 m k n. Frozen weights have a forward product and one for the gradient of their input, trained ones a
/// third for their own gradient; causal attention sees half of its square, forward once and backward twice.
double useful_flops(const Settings& settings, const ModelConfig& config) {
  const double n = static_cast<double>(settings.rows * settings.tokens),
               layers = static_cast<double>(config.num_layers);
  const MethodOptions& method = settings.method;
  const bool whole = method.trains_everything();
  double projections = 0.0, lora = 0.0, ffn = 0.0;
  for (const Proj proj : all_projections) {
    const double in = static_cast<double>(projection_cols(config, proj));
    const double out = static_cast<double>(projection_rows(config, proj));
    (proj == Proj::gate || proj == Proj::up || proj == Proj::down ? ffn : projections) += in * out;
    lora += static_cast<double>(method.lora_rank) * (in + out);
  }
  const double k = static_cast<double>(method.top_k), c = static_cast<double>(config.hidden_size);
  double per_token = 2.0 * (whole ? 3.0 : 2.0) * (projections + ffn * (method.method == Method::upcycle ? k : 1.0));
  if (method.has_lora()) per_token += 6.0 * lora;
  if (method.has_adapters()) per_token += 6.0 * k * 2.0 * c * static_cast<double>(method.adapter_dim);
  const double head = 2.0 * (whole ? 3.0 : 2.0) * c * static_cast<double>(config.vocab_size);
  const double attention = 3.0 * 2.0 * static_cast<double>(settings.tokens) * static_cast<double>(config.q_size());
  return n * (layers * (per_token + attention) + head);
}

/// Of all threads of the process.
double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// TFLOP/s of an 8192 x 8192 x 8192 product in bf16 through the engine's own linear_forward, for as long as the steps.
double measure_ceiling(const Exec& exec, double seconds) {
  constexpr int64_t size = 8192;
  const DeviceBuffer x = DeviceBuffer::of(exec.device, DType::bf16, size * size);
  const DeviceBuffer w = DeviceBuffer::of(exec.device, DType::bf16, size * size);
  const DeviceBuffer y = DeviceBuffer::of(exec.device, DType::bf16, size * size);
  fill_normal(exec, x.ptr(DType::bf16), size * size, 1.0f, 1, 1);
  fill_normal(exec, w.ptr(DType::bf16), size * size, 1.0f, 1, 2);
  const auto product = [&] {
    linear_forward(exec, y.ptr(DType::bf16), x.ptr(DType::bf16), Weight::of(w.ptr(DType::bf16), size, size), nullptr,
                   size, 1.0f, false);
  };
  for (int i = 0; i < 5; ++i) product();
  synchronize(exec);
  constexpr int together = 20;
  std::vector<double> times;
  const auto start = std::chrono::steady_clock::now();
  do {
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < together; ++i) product();
    synchronize(exec);
    times.push_back(seconds_since(began) / together);
  } while (seconds_since(start) < seconds);
  return 2.0 * static_cast<double>(size) * size * size / median(times) / 1e12;
}

}  // namespace

int main(int argc, char** argv) try {
  const Settings settings = parse(argc, argv);
  const ComputeDevice device(settings.device, settings.threads);
  const Exec& exec = device.exec();
  const ModelConfig config = bench::bench_shape(settings.shape, settings.layers);
  double ceiling = 0.0;
  if (settings.device == Device::cuda) ceiling = measure_ceiling(exec, std::min(settings.seconds, 20.0));

  const auto loading = std::chrono::steady_clock::now();
  const auto base = make_random_base_model(exec, config, 1, {settings.base, true, settings.compute});
  const auto set = std::make_shared<TrainableSet>(exec.device, config, settings.method, settings.train_dtype);
  set->initialise(exec, *base, 1);
  set->allocate_gradients();
  if (settings.device == Device::cuda && settings.compute == DType::bf16) set->allocate_copies();
  const auto model = std::make_shared<Model>(exec, config, base, set, settings.tokens);
  const MicroBatch batch = random_batch(settings, config.vocab_size);
  DecoderOptions options;
  options.activation = settings.compute;
  options.recompute = settings.recompute;
  options.keep_outputs = settings.keep_outputs;
  options.max_tokens = batch.size();
  options.max_targets = batch.target_count();
  Decoder decoder(exec, model, options);
  AdamWSettings adamw;
  adamw.kind = parse_adamw_kind(settings.optimizer);
  AdamW optimizer(exec, *set, adamw);
  GradientClip clip(exec.device);
  synchronize(exec);

  std::printf("%s, %s, %s, base %s, compute %s, %lld x %lld tokens, %d threads, set up in %.1f s\n",
              settings.device == Device::cuda ? "cuda" : "cpu", settings.shape.c_str(),
              method_name(settings.method.method), base_dtype_name(settings.base),
              settings.compute == DType::f32 ? "f32" : "bf16", static_cast<long long>(settings.rows),
              static_cast<long long>(settings.tokens), thread_count(exec), seconds_since(loading));
  if (settings.forward) {
    const auto start = std::chrono::steady_clock::now();
    decoder.evaluate(batch.tokens(), batch.targets());
    std::printf("forward alone %.3f s\n", seconds_since(start));
  }
  std::vector<double> both_times, step_times;
  double processor = 0.0;
  double loss = 0.0;
  int64_t step = 0;
  const auto run_step = [&] {
    ++step;
    const auto start = std::chrono::steady_clock::now();
    const double processor_start = processor_seconds();
    set->zero_gradients(exec);
    StepPlace place;
    place.step = static_cast<uint32_t>(step);
    place.loss_scale = 1.0f / static_cast<float>(batch.target_count());
    const MicroBatchResult result = decoder.forward_backward(batch.tokens(), batch.targets(), place);
    both_times.push_back(seconds_since(start));
    loss = 0.0;
    for (const float one : result.losses) loss += one / static_cast<double>(batch.target_count());
    optimizer.update(exec, *set, 1e-4f, clip.measure(exec, *set, decoder.squared_losses(), 0.3f), step);
    synchronize(exec);
    step_times.push_back(seconds_since(start));
    processor = processor_seconds() - processor_start;
  };
  const auto began = std::chrono::steady_clock::now();
  while (step < settings.steps || seconds_since(began) < settings.seconds) {
    run_step();
    if (settings.device == Device::cpu || step <= 3) {
      std::printf("step %lld: loss %.4f, forward and backward %.3f s, step %.3f s (processor %.3f s): %.1f tokens/s\n",
                  static_cast<long long>(step), loss, both_times.back(), step_times.back(), processor,
                  static_cast<double>(batch.size()) / step_times.back());
      std::fflush(stdout);
    }
  }
  const size_t steps_taken = step_times.size();
  const double tokens = static_cast<double>(batch.size());
  const double best = tokens / *std::min_element(step_times.begin(), step_times.end());
  const double usual = tokens / median(step_times);
  std::printf("best %.1f tokens/s\n", best);
  const double tflops = useful_flops(settings, config) / median(step_times) / 1e12;
  if (settings.device == Device::cuda) {
    std::printf(
        "median of %zu steps %.1f tokens/s, forward and backward alone %.1f; useful %.1f TFLOP/s, %.1f %% of %.1f\n",
        steps_taken, usual, tokens / median(both_times), tflops, 100.0 * tflops / ceiling, ceiling);
  }
  nlohmann::ordered_json times = nlohmann::ordered_json::array();
  if (settings.times) {
    constexpr int timed_steps = 3;
    start_kernel_times(exec);
    for (int i = 0; i < timed_steps; ++i) run_step();
    const auto by_operation = take_kernel_times(exec);
    std::vector<std::pair<std::string, OperationTime>> sorted(by_operation.begin(), by_operation.end());
    std::sort(sorted.begin(), sorted.end(),
              [](const auto& a, const auto& b) { return a.second.milliseconds > b.second.milliseconds; });
    for (const auto& [name, time] : sorted) {
      const double each = time.milliseconds / timed_steps;
      const int64_t calls = time.calls / timed_steps;
      const std::string named = name.empty() ? "between operations" : name;
      std::printf("%-32s %9.3f ms a step, %6lld calls\n", named.c_str(), each, static_cast<long long>(calls));
      times.push_back({{"operation", named}, {"milliseconds", each}, {"calls", calls}});
    }
  }
  if (!settings.json.empty()) {
    const nlohmann::ordered_json json = {{"bench", "train"},
                                         {"shape", settings.shape},
                                         {"layers", config.num_layers},
                                         {"device", settings.device == Device::cuda ? "cuda" : "cpu"},
                                         {"method", method_name(settings.method.method)},
                                         {"experts", settings.method.num_experts},
                                         {"adapterDim", settings.method.adapter_dim},
                                         {"base", base_dtype_name(settings.base)},
                                         {"compute", settings.compute == DType::f32 ? "f32" : "bf16"},
                                         {"trainDtype", settings.train_dtype == DType::f32 ? "f32" : "bf16"},
                                         {"optimizer", settings.optimizer},
                                         {"rows", settings.rows},
                                         {"tokens", settings.tokens},
                                         {"recompute", settings.recompute},
                                         {"keepOutputs", settings.keep_outputs},
                                         {"steps", steps_taken},
                                         {"tokensPerSecond", usual},
                                         {"bestTokensPerSecond", best},
                                         {"forwardBackwardTokensPerSecond", tokens / median(both_times)},
                                         {"usefulTflops", tflops},
                                         {"ceilingTflops", ceiling},
                                         {"lastLoss", loss},
                                         {"decoderBytes", decoder.memory_bytes()},
                                         {"baseBytes", base->bytes()},
                                         {"operationsOfAStep", times}};
    std::ofstream(settings.json) << json.dump(1) << "\n";
  }
  return 0;
} catch (const EngineError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
