// Tokens per second of prompt and answer over a model with random weights (speed does not depend on the values):
//
//   decode_bench [--shape smollm2-135m] [--device cpu|cuda] [--base nf4] [--compute f32] [--method pesc] [--experts 8]
//                [--adapter-dim 64] [--prompt 512] [--tokens 64] [--threads 0] [--all]
//
// --all: every base, plain and with experts. --model DIR: a stored model instead (no method then).
// --suite: what a chat is made of, as JSON: a prompt of 2,048 tokens, one conversation at an empty context and at one of
// 2,048, and eight at once; --experts 8 --adapter-dim 512 unless said otherwise.
#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "bench_shapes.h"
#include "engine/infer/inference_model.h"
#include "engine/infer/rounded_set.h"
#include "engine/model/compute_device.h"
#include "kernels/philox.h"
#include "kernels/random.h"
#include "kernels/transfer.h"

using namespace caravan;

namespace {

struct Settings {
  BaseDType base = BaseDType::nf4;
  DType compute = DType::f32;
  std::string shape = "smollm2-135m";
  Device device = Device::cpu;
  Method method = Method::base;
  int64_t experts = 8;
  int64_t adapter_dim = 64;
  int64_t prompt = 512;
  int64_t tokens = 64;
  int threads = 0;
  bool all = false;
  bool suite = false;
  std::string model;
};

Settings parse(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--all") {
      settings.all = true;
      continue;
    }
    if (name == "--suite") {
      settings.suite = true;
      continue;
    }
    const std::string value = i + 1 < argc ? argv[++i] : "";
    if (name == "--base") settings.base = parse_base_dtype(value);
    if (name == "--compute") settings.compute = value == "bf16" ? DType::bf16 : DType::f32;
    if (name == "--method") settings.method = parse_method(value);
    if (name == "--shape") settings.shape = value;
    if (name == "--device") settings.device = value == "cuda" ? Device::cuda : Device::cpu;
    if (name == "--experts") settings.experts = std::stoll(value);
    if (name == "--adapter-dim") settings.adapter_dim = std::stoll(value);
    if (name == "--prompt") settings.prompt = std::stoll(value);
    if (name == "--tokens") settings.tokens = std::stoll(value);
    if (name == "--threads") settings.threads = std::stoi(value);
    if (name == "--model") settings.model = value;
  }
  return settings;
}

std::shared_ptr<InferenceModel> make_model(const Settings& settings) {
  if (!settings.model.empty()) {
    OpenModelOptions options;
    options.model_dir = settings.model;
    options.base_dtype = settings.base;
    options.compute_dtype = settings.compute;
    options.threads = settings.threads;
    options.device = settings.device;
    return InferenceModel::open(options);
  }
  const ComputeDevice device(settings.device, settings.threads);
  const Exec& exec = device.exec();
  const ModelConfig config = bench::bench_shape(settings.shape);
  const auto base = make_random_base_model(exec, config, 1, {settings.base, true, DType::bf16});
  std::shared_ptr<TrainableSet> set;
  if (settings.method != Method::base) {
    MethodOptions method;
    method.method = settings.method;
    method.num_experts = settings.experts;
    method.adapter_dim = settings.adapter_dim;
    set = std::make_shared<TrainableSet>(exec.device, config, method, DType::f32);
    set->initialise(exec, *base, 1);
    // B and Up begin as zeros, which no trained model has.
    for (const Parameter& parameter : set->parameters()) {
      if (parameter.name.ends_with(".lora_b") || parameter.name.ends_with(".adapter_up")) {
        fill_normal(exec, parameter.value, parameter.count, 0.01f, 2, parameter.index);
      }
    }
    if (exec.device == Device::cuda && settings.compute == DType::bf16) set = round_for_bf16(exec, config, set);
  }
  const auto model = std::make_shared<const Model>(exec, config, base, set, config.max_positions);
  synchronize(exec);
  return std::make_shared<InferenceModel>(model, settings.compute, settings.threads);
}

GenerateOptions options_of(const InferenceModel& model, int64_t prompt, int64_t tokens, uint32_t seed) {
  const auto vocab = static_cast<uint32_t>(model.config().vocab_size);
  GenerateOptions options;
  options.max_tokens = tokens;
  for (uint32_t i = 0; i < prompt; ++i) {
    options.prompt_ids.push_back(static_cast<int32_t>(philox(seed, 0, i, 0, 0, 0).word[0] % vocab));
  }
  return options;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Tokens per second of `conversations` answers at once, from the first token of the last to begin to the end.
double together(InferenceModel& model, int conversations, int64_t prompt, int64_t tokens) {
  std::vector<GenerateResult> results(static_cast<size_t>(conversations));
  std::vector<std::thread> threads;
  for (int i = 0; i < conversations; ++i) {
    threads.emplace_back([&, i] {
      results[static_cast<size_t>(i)] =
          model.generate(options_of(model, prompt, tokens, static_cast<uint32_t>(100 + i)));
    });
  }
  for (std::thread& thread : threads) thread.join();
  double longest = 0.0;
  for (const GenerateResult& result : results) longest = std::max(longest, result.generate_ms);
  return static_cast<double>(conversations * (tokens - 1)) / longest * 1e3;
}

void run_suite(const Settings& settings) {
  const auto model = make_model(settings);
  constexpr int rounds = 5;
  const int64_t context = std::min<int64_t>(2048, model->context_length() - settings.tokens);
  std::vector<double> prompt, empty, full, eight;
  for (int round = 0; round <= rounds; ++round) {
    const GenerateResult long_one = model->generate(options_of(*model, context, settings.tokens, 1));
    const GenerateResult short_one = model->generate(options_of(*model, 1, settings.tokens, 2));
    const double all = together(*model, 8, 16, settings.tokens);
    if (round == 0) continue;  // it warms up
    prompt.push_back(static_cast<double>(context) / long_one.prompt_ms * 1e3);
    full.push_back(long_one.tokens_per_second);
    empty.push_back(short_one.tokens_per_second);
    eight.push_back(all);
  }
  std::printf(
      "{\"bench\": \"decode\", \"shape\": \"%s\", \"device\": \"%s\", \"method\": \"%s\", "
      "\"experts\": %lld, \"adapterDim\": %lld, \"base\": \"%s\", \"compute\": \"%s\", "
      "\"context\": %lld, \"tokens\": %lld, \"promptTokensPerSecond\": %.1f, "
      "\"emptyContextTokensPerSecond\": %.1f, \"fullContextTokensPerSecond\": %.1f, "
      "\"eightConversationsTokensPerSecond\": %.1f, \"mostTogether\": %lld, \"modelMiB\": %zu}\n",
      settings.shape.c_str(), settings.device == Device::cuda ? "cuda" : "cpu", method_name(settings.method),
      static_cast<long long>(settings.experts), static_cast<long long>(settings.adapter_dim),
      base_dtype_name(settings.base), settings.compute == DType::f32 ? "f32" : "bf16", static_cast<long long>(context),
      static_cast<long long>(settings.tokens), median(prompt), median(empty), median(full), median(eight),
      static_cast<long long>(model->most_answers_together()), model->memory_bytes() >> 20);
}

void measure(const Settings& settings) {
  const auto model = make_model(settings);
  const GenerateOptions options = options_of(*model, settings.prompt, settings.tokens, 1);
  for (int round = 0; round < 3; ++round) {
    const GenerateResult result = model->generate(options);
    std::printf("base %s, compute %s, %s, context %lld: prompt %.0f tokens/s, answer %.1f tokens/s, %zu MiB\n",
                base_dtype_name(settings.base), settings.compute == DType::f32 ? "f32" : "bf16",
                method_name(settings.method), static_cast<long long>(settings.prompt),
                static_cast<double>(settings.prompt) / result.prompt_ms * 1e3, result.tokens_per_second,
                model->memory_bytes() >> 20);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings = parse(argc, argv);
  if (settings.suite) {
    run_suite(settings);
    return 0;
  }
  if (!settings.all) {
    measure(settings);
    return 0;
  }
  for (const BaseDType base : {BaseDType::f32, BaseDType::bf16, BaseDType::nf4}) {
    for (const Method method : {Method::base, Method::pesc}) {
      settings.base = base;
      settings.method = method;
      measure(settings);
    }
  }
}
