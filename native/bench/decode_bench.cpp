// Tokens per second of prompt and answer over a model with random weights (speed does not depend on the values):
//
//   decode_bench [--shape smollm2-135m] [--device cpu|cuda] [--base nf4] [--compute f32] [--method pesc] [--experts 8]
//                [--adapter-dim 64] [--prompt 512] [--tokens 64] [--threads 0] [--all]
//
// --all: every base, plain and with experts. --model DIR: a stored model instead (no method then).
#include <cstdio>
#include <string>

#include "bench_shapes.h"
#include "engine/infer/inference_model.h"
#include "engine/model/compute_device.h"
#include "kernels/philox.h"
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
  }
  const auto model = std::make_shared<const Model>(exec, config, base, set, config.max_positions);
  synchronize(exec);
  return std::make_shared<InferenceModel>(model, settings.compute, settings.threads);
}

void measure(const Settings& settings) {
  const auto model = make_model(settings);
  const uint32_t vocab = static_cast<uint32_t>(model->config().vocab_size);
  GenerateOptions options;
  options.max_tokens = settings.tokens;
  for (int64_t i = 0; i < settings.prompt; ++i) {
    options.prompt_ids.push_back(static_cast<int32_t>(philox(1, 0, static_cast<uint32_t>(i), 0, 0, 0).word[0] % vocab));
  }
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
