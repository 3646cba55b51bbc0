// A whole pass of a small model on the GPU, in the widths that its own kernels take (rows that go on with LoRA's u, masks
// read as bits), against the CPU's.
#include "cuda/cuda_test.h"
#include "kernels/random.h"
#include "tiny_model.h"

using namespace caravan;
using namespace caravan::test;

namespace {

ModelConfig config() {
  return parse_model_config(R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 61,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": false})",
                            "small");
}

struct Options {
  bool recompute = false, keep_outputs = false, copies = false;
};

struct Ran {
  std::vector<float> losses;
  std::vector<std::vector<float>> gradients;
};

Ran run(const Exec& exec, Method kind, const Options& of) {
  MethodOptions method = tiny_method(kind);
  method.lora_rank = 8;
  method.lora_alpha = 16.0f;
  method.lora_dropout = method.adapter_dropout = 0.2f;
  method.adapter_dim = 16;
  const auto base = make_random_base_model(exec, config(), 7, {BaseDType::nf4, true, DType::bf16});
  const auto set = std::make_shared<TrainableSet>(exec.device, config(), method, DType::f32);
  set->initialise(exec, *base, 11);
  // B and Up begin at zero, behind which nothing would have a gradient.
  for (const Parameter& parameter : set->parameters()) {
    fill_normal(exec, parameter.value, parameter.count, 0.1f, 13, parameter.index);
  }
  set->allocate_gradients();
  if (of.copies) set->allocate_copies();
  const auto model = std::make_shared<Model>(exec, config(), base, set, 128);
  const MicroBatch batch = pack(make_conversations(8, 2));
  DecoderOptions options;
  options.activation = DType::bf16;
  options.recompute = of.recompute;
  options.keep_outputs = of.keep_outputs;
  options.max_tokens = batch.size();
  options.max_targets = batch.target_count();
  Decoder decoder(exec, model, options);
  set->zero_gradients(exec);
  StepPlace place;
  place.seed = 5;
  place.step = 3;
  place.loss_scale = 1.0f / static_cast<float>(batch.target_count());
  Ran ran;
  ran.losses = decoder.forward_backward(batch.tokens(), batch.targets(), place).losses;
  for (const Parameter& parameter : set->parameters()) {
    std::vector<float> gradient(static_cast<size_t>(parameter.count));
    download(exec, gradient.data(), parameter.gradient.data, gradient.size() * sizeof(float));
    ran.gradients.push_back(gradient);
  }
  return ran;
}

double mean(const std::vector<float>& values) {
  double sum = 0.0;
  for (const float value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double ab = 0.0, aa = 0.0, bb = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += double{a[i]} * b[i];
    aa += double{a[i]} * a[i];
    bb += double{b[i]} * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

}  // namespace

TEST_CASE("a pass in bf16 on the GPU is the CPU's but for roundings") {
  for (const Method method : {Method::lora, Method::pesc}) {
    INFO(method_name(method));
    const Ran cpu = run(cpu_exec(), method, {}), gpu = run(cuda_exec(), method, {});
    CHECK(std::fabs(mean(gpu.losses) - mean(cpu.losses)) < 0.01 * mean(cpu.losses));
    for (size_t p = 0; p < cpu.gradients.size(); ++p) {
      INFO("parameter " << p);
      CHECK(cosine(cpu.gradients[p], gpu.gradients[p]) > 0.98);
    }
  }
}

TEST_CASE("neither recomputation nor what it keeps nor copies of the weights changes a bit on the GPU") {
  for (const Method method : {Method::lora, Method::pesc}) {
    INFO(method_name(method));
    const Ran plain = run(cuda_exec(), method, {});
    for (const Options& options : {Options{true, false, false}, Options{true, true, false}, Options{false, false, true},
                                   Options{true, true, true}, Options{}}) {
      const Ran other = run(cuda_exec(), method, options);
      CHECK(plain.losses == other.losses);
      CHECK(plain.gradients == other.gradients);
    }
  }
}
