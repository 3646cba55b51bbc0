// A model small enough for a test, its crafted forms, and conversations to feed it.
#pragma once

#include <memory>
#include <vector>

#include "engine/model/decoder.h"
#include "engine/train/micro_batch.h"
#include "test_device.h"

namespace caravan::test {

/// Two layers, C 32, F 48, 4 heads of 8 over 2 KV heads, V 61. `family`: llama, qwen2 (biases) or qwen3 (q/k norm).
ModelConfig tiny_config(const std::string& family = "llama");
std::string tiny_config_json(const std::string& family = "llama");

/// R 4, A 6, E 4, K 2, no dropout.
MethodOptions tiny_method(Method method);

/// Of the device under test.
Exec exec_with_threads(int threads);

/// A crafted model with gradients, its set filled with random values (B and Up too, so that every gradient is there).
struct TinySession {
  std::shared_ptr<const BaseModel> base;
  std::shared_ptr<TrainableSet> set;
  std::shared_ptr<Model> model;
};
TinySession make_session(const Exec& exec, const ModelConfig& config, const MethodOptions& method,
                         DType train_dtype = DType::f32, BaseDType base_dtype = BaseDType::f32, bool perturb = true);

/// `count` conversations of 5 to 5 + 3 * count tokens with the later half as targets; a function of the seed.
struct Conversation {
  std::vector<int32_t> ids;
  std::vector<uint8_t> is_target;
};
std::vector<Conversation> make_conversations(int count, uint32_t seed, int64_t vocab_size = 61);
MicroBatch pack(const std::vector<Conversation>& conversations, int first = 0, int last = -1, int64_t padding = 0);

int64_t target_tokens(const std::vector<Conversation>& conversations);

/// Copies of all gradients, parameter by parameter, in f32.
std::vector<std::vector<float>> copy_gradients(const TrainableSet& set);
std::vector<std::vector<float>> copy_values(const TrainableSet& set);
/// max |a - b| / max |b| over each parameter; the largest of them.
double largest_difference(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b);

}  // namespace caravan::test
