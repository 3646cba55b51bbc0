// Tokens per second of one training micro-batch on the CPU, over a model with random weights (speed does not depend on
// the values) in the shape of SmolLM2-135M or of the demo's base model:
//
//   train_bench [--shape smollm2] [--method lora] [--base bf16] [--compute f32] [--tokens 512] [--rows 4] [--recompute]
//               [--threads 0] [--steps 3] [--forward]
//
// A step is: gradients to zero, forward, backward, the gradient norm, AdamW. --forward times the forward pass as well.
// The processor's seconds stand beside the clock's: on a machine with other work, the former say more.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
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
const char* const demo = R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 704,
  "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32, "vocab_size": 4096,
  "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000, "tie_word_embeddings": true})";

struct Settings {
  std::string shape = "smollm2";
  MethodOptions method;
  BaseDType base = BaseDType::bf16;
  DType compute = DType::f32;
  int64_t tokens = 512;
  int64_t rows = 4;
  bool recompute = false;
  int threads = 0;
  int64_t steps = 3;
  bool forward = false;
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
    if (name == "--forward") {
      settings.forward = true;
      continue;
    }
    const std::string value = i + 1 < argc ? argv[++i] : "";
    if (name == "--shape") settings.shape = value;
    if (name == "--steps") settings.steps = std::stoll(value);
    if (name == "--method") settings.method.method = parse_method(value);
    if (name == "--base") settings.base = parse_base_dtype(value);
    if (name == "--compute") settings.compute = value == "bf16" ? DType::bf16 : DType::f32;
    if (name == "--tokens") settings.tokens = std::stoll(value);
    if (name == "--rows") settings.rows = std::stoll(value);
    if (name == "--threads") settings.threads = std::stoi(value);
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

/// Of all threads of the process.
double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  const Settings settings = parse(argc, argv);
  const auto pool = make_thread_pool(settings.threads);
  Exec exec;
  exec.pool = pool.get();
  const ModelConfig config = parse_model_config(settings.shape == "demo" ? demo : smollm2, settings.shape);
  const auto base = make_random_base_model(exec, config, 1, {settings.base, true, settings.compute});
  const auto set = std::make_shared<TrainableSet>(exec.device, config, settings.method, DType::f32);
  set->initialise(exec, *base, 1);
  set->allocate_gradients();
  const auto model = std::make_shared<Model>(exec, config, base, set, settings.tokens);
  const MicroBatch batch = random_batch(settings, config.vocab_size);
  DecoderOptions options;
  options.activation = settings.compute;
  options.recompute = settings.recompute;
  options.max_tokens = batch.size();
  options.max_targets = batch.target_count();
  Decoder decoder(exec, model, options);
  AdamW optimizer(*set, AdamWSettings());

  std::printf("%s, %s, base %s, compute %s, %lld x %lld tokens, %d threads\n", settings.shape.c_str(),
              method_name(settings.method.method), base_dtype_name(settings.base),
              settings.compute == DType::f32 ? "f32" : "bf16", static_cast<long long>(settings.rows),
              static_cast<long long>(settings.tokens), thread_count(exec));
  if (settings.forward) {
    const auto start = std::chrono::steady_clock::now();
    decoder.evaluate(batch.tokens(), batch.targets());
    std::printf("forward alone %.3f s\n", seconds_since(start));
  }
  double best = 0.0;
  for (int64_t step = 1; step <= settings.steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    const double processor_start = processor_seconds();
    set->zero_gradients(exec);
    StepPlace place;
    place.step = static_cast<uint32_t>(step);
    place.loss_scale = 1.0f / static_cast<float>(batch.target_count());
    decoder.forward_backward(batch.tokens(), batch.targets(), place);
    const double both = seconds_since(start);
    gradient_norm(exec, *set);
    optimizer.update(exec, *set, 1e-4f, 1.0f, step);
    const double whole = seconds_since(start);
    const double speed = static_cast<double>(batch.size()) / whole;
    best = std::max(best, speed);
    std::printf("step %lld: forward and backward %.3f s, step %.3f s (processor %.3f s): %.1f tokens/s\n",
                static_cast<long long>(step), both, whole, processor_seconds() - processor_start, speed);
    std::fflush(stdout);
  }
  std::printf("best %.1f tokens/s\n", best);
}
