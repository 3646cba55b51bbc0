// Tokens per second of one training micro-batch on the CPU, over a model of SmolLM2-135M's shape with random weights
// (speed does not depend on the values):
//
//   train_bench [--method lora] [--base bf16] [--compute f32] [--tokens 512] [--rows 4] [--recompute] [--threads 0]
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>

#include "engine/model/decoder.h"
#include "engine/train/adamw.h"
#include "engine/train/micro_batch.h"
#include "kernels/philox.h"

using namespace caravan;

namespace {

const char* const smollm2 = R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 576, "intermediate_size": 1536,
  "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
  "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000, "tie_word_embeddings": true})";

struct Settings {
  MethodOptions method;
  BaseDType base = BaseDType::bf16;
  DType compute = DType::f32;
  int64_t tokens = 512;
  int64_t rows = 4;
  bool recompute = false;
  int threads = 0;
};

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
    const std::string value = i + 1 < argc ? argv[++i] : "";
    if (name == "--method") settings.method.method = parse_method(value);
    if (name == "--base") settings.base = parse_base_dtype(value);
    if (name == "--compute") settings.compute = value == "bf16" ? DType::bf16 : DType::f32;
    if (name == "--tokens") settings.tokens = std::stoll(value);
    if (name == "--rows") settings.rows = std::stoll(value);
    if (name == "--threads") settings.threads = std::stoi(value);
  }
  return settings;
}

MicroBatch random_batch(const Settings& settings) {
  MicroBatch batch;
  for (int64_t row = 0; row < settings.rows; ++row) {
    std::vector<int32_t> ids;
    for (int64_t j = 0; j < settings.tokens; ++j) {
      ids.push_back(static_cast<int32_t>(
          philox(1, 0, static_cast<uint32_t>(j), static_cast<uint32_t>(row), 0, 0).word[0] % 49152));
    }
    const std::vector<uint8_t> targets(ids.size(), 1);
    batch.add(ids.data(), targets.data(), settings.tokens, static_cast<int32_t>(row));
  }
  return batch;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  const Settings settings = parse(argc, argv);
  const auto pool = make_thread_pool(settings.threads);
  Exec exec;
  exec.pool = pool.get();
  const ModelConfig config = parse_model_config(smollm2, "smollm2");
  const auto base = make_random_base_model(exec, config, 1, {settings.base, true, settings.compute});
  const auto set = std::make_shared<TrainableSet>(exec.device, config, settings.method, DType::f32);
  set->initialise(exec, *base, 1);
  set->allocate_gradients();
  const auto model = std::make_shared<Model>(exec.device, config, base, set, settings.tokens);
  const MicroBatch batch = random_batch(settings);
  DecoderOptions options;
  options.activation = settings.compute;
  options.recompute = settings.recompute;
  options.max_tokens = batch.size();
  options.max_targets = batch.target_count();
  Decoder decoder(exec, model, options);
  AdamW optimizer(*set, AdamWSettings());

  std::printf("%s, base %s, compute %s, %lld x %lld tokens, %d threads\n", method_name(settings.method.method),
              base_dtype_name(settings.base), settings.compute == DType::f32 ? "f32" : "bf16",
              static_cast<long long>(settings.rows), static_cast<long long>(settings.tokens), thread_count(exec));
  for (int64_t step = 1; step <= 3; ++step) {
    auto start = std::chrono::steady_clock::now();
    decoder.evaluate(batch.tokens(), batch.targets());
    const double forward = seconds_since(start);
    start = std::chrono::steady_clock::now();
    set->zero_gradients(exec);
    StepPlace place;
    place.step = static_cast<uint32_t>(step);
    place.loss_scale = 1.0f / static_cast<float>(batch.target_count());
    decoder.forward_backward(batch.tokens(), batch.targets(), place);
    const double both = seconds_since(start);
    gradient_norm(exec, *set);
    optimizer.update(exec, *set, 1e-4f, 1.0f, step);
    const double whole = seconds_since(start);
    std::printf("step %lld: forward alone %.2f s, forward and backward %.2f s, step %.2f s: %.1f tokens/s\n",
                static_cast<long long>(step), forward, both, whole, static_cast<double>(batch.size()) / whole);
    std::fflush(stdout);
  }
}
