#include "tiny_model.h"

#include <algorithm>
#include <cmath>

#include "kernels/philox.h"
#include "kernels/random.h"

namespace caravan::test {

std::string tiny_config_json(const std::string& family) {
  const std::string architecture = family == "qwen2"     ? "Qwen2ForCausalLM"
                                   : family == "qwen3"   ? "Qwen3ForCausalLM"
                                   : family == "mistral" ? "MistralForCausalLM"
                                                         : "LlamaForCausalLM";
  return R"({"architectures": [")" + architecture + R"("], "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 61,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": )" +
         (family == "qwen2" ? "true" : "false") + "}";
}

ModelConfig tiny_config(const std::string& family) { return parse_model_config(tiny_config_json(family), "tiny"); }

MethodOptions tiny_method(Method method) {
  MethodOptions options;
  options.method = method;
  options.lora_rank = 4;
  options.lora_alpha = 8.0f;
  options.lora_dropout = 0.0f;
  options.num_experts = 4;
  options.top_k = 2;
  options.adapter_dim = 6;
  options.adapter_dropout = 0.0f;
  options.balance_coefficient = 0.01f;
  return options;
}

Exec exec_with_threads(int threads) {
  static std::vector<std::shared_ptr<ThreadPool>> pools;  // Exec does not own its pool
  Exec exec = test_exec();
  if (threads > 1) {
    pools.push_back(make_thread_pool(threads));
    exec.pool = pools.back().get();
  }
  return exec;
}

TinySession make_session(const Exec& exec, const ModelConfig& config, const MethodOptions& method, DType train_dtype,
                         BaseDType base_dtype, bool perturb) {
  TinySession session;
  BaseOptions options;
  options.dtype = base_dtype;
  options.dense_dtype = DType::f32;
  session.base = make_random_base_model(exec, config, 7, options);
  if (method.method != Method::base) {
    session.set = std::make_shared<TrainableSet>(exec.device, config, method, train_dtype);
    session.set->initialise(exec, *session.base, 11);
    session.set->allocate_gradients();
  }
  if (session.set && perturb) {
    for (const Parameter& parameter : session.set->parameters()) {
      std::vector<float> noise(static_cast<size_t>(parameter.count));
      fill_normal({Device::cpu, exec.pool}, noise.data(), parameter.count, 0.1f, 13, parameter.index);
      std::vector<float> values = read_values(parameter.value, parameter.count);
      for (size_t i = 0; i < values.size(); ++i) values[i] += noise[i];
      write_values(parameter.value, values);
    }
  }
  session.model = std::make_shared<Model>(exec, config, session.base, session.set, config.max_positions);
  return session;
}

std::vector<Conversation> make_conversations(int count, uint32_t seed, int64_t vocab_size) {
  std::vector<Conversation> conversations;
  for (int i = 0; i < count; ++i) {
    const uint32_t length =
        5 + philox(seed, 1, static_cast<uint32_t>(i), 0, 0, 0).word[0] % static_cast<uint32_t>(3 * count);
    Conversation conversation;
    for (uint32_t j = 0; j < length; ++j) {
      const uint32_t word = philox(seed, 2, static_cast<uint32_t>(i), j, 0, 0).word[0];
      conversation.ids.push_back(static_cast<int32_t>(word % static_cast<uint32_t>(vocab_size)));
      conversation.is_target.push_back(j >= length / 2);
    }
    conversations.push_back(std::move(conversation));
  }
  return conversations;
}

MicroBatch pack(const std::vector<Conversation>& conversations, int first, int last, int64_t padding) {
  MicroBatch batch;
  if (last < 0) last = static_cast<int>(conversations.size());
  for (int i = first; i < last; ++i) {
    const Conversation& one = conversations[static_cast<size_t>(i)];
    batch.add(one.ids.data(), one.is_target.data(), static_cast<int64_t>(one.ids.size()), i);
  }
  batch.pad(padding);
  return batch;
}

int64_t target_tokens(const std::vector<Conversation>& conversations) { return pack(conversations).target_count(); }

std::vector<std::vector<float>> copy_gradients(const TrainableSet& set) {
  std::vector<std::vector<float>> all;
  for (const Parameter& parameter : set.parameters()) all.push_back(read_values(parameter.gradient, parameter.count));
  return all;
}

std::vector<std::vector<float>> copy_values(const TrainableSet& set) {
  std::vector<std::vector<float>> all;
  for (const Parameter& parameter : set.parameters()) all.push_back(read_values(parameter.value, parameter.count));
  return all;
}

double largest_difference(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  double worst = a.size() == b.size() ? 0.0 : INFINITY;
  for (size_t p = 0; p < std::min(a.size(), b.size()); ++p) {
    double difference = 0.0, scale = 0.0;
    for (size_t i = 0; i < b[p].size(); ++i) {
      difference = std::max(difference, std::fabs(static_cast<double>(a[p][i]) - b[p][i]));
      scale = std::max(scale, std::fabs(static_cast<double>(b[p][i])));
    }
    if (scale > 0.0) worst = std::max(worst, difference / scale);
    if (scale == 0.0 && difference > 0.0) worst = INFINITY;
  }
  return worst;
}

}  // namespace caravan::test
