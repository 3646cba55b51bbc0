#include "bench_shapes.h"

#include <map>

#include "engine/platform/error.h"

namespace caravan::bench {

namespace {

/// hidden, intermediate, layers, heads, KV heads, head size, vocabulary, positions, tied.
struct Shape {
  int64_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, positions;
  bool tied;
};

const std::map<std::string, Shape> shapes = {
    {"demo", {256, 704, 6, 8, 4, 32, 4096, 512, true}},
    {"smollm2-135m", {576, 1536, 30, 9, 3, 64, 49152, 8192, true}},
    {"llama2-7b", {4096, 11008, 32, 32, 32, 128, 32000, 4096, false}},
    {"llama2-13b", {5120, 13824, 40, 40, 40, 128, 32000, 4096, false}},
    {"mistral-7b", {4096, 14336, 32, 32, 8, 128, 32000, 32768, false}},
    {"yi-34b", {7168, 20480, 60, 56, 8, 128, 64000, 4096, false}},
};

}  // namespace

ModelConfig bench_shape(const std::string& name, int64_t layers) {
  const auto found = shapes.find(name);
  if (found == shapes.end()) {
    std::string names;
    for (const auto& [known, unused] : shapes) names += (names.empty() ? "" : ", ") + known;
    throw EngineError("bad_option", "--shape is " + name + "; it must be one of " + names);
  }
  const Shape& shape = found->second;
  const auto field = [](const char* key, int64_t value) {
    return ", \"" + std::string(key) + "\": " + std::to_string(value);
  };
  const std::string json = "{\"architectures\": [\"LlamaForCausalLM\"], \"rms_norm_eps\": 1e-5" +
                           field("hidden_size", shape.hidden) + field("intermediate_size", shape.intermediate) +
                           field("num_hidden_layers", layers > 0 ? layers : shape.layers) +
                           field("num_attention_heads", shape.heads) + field("num_key_value_heads", shape.kv_heads) +
                           field("head_dim", shape.head_dim) + field("vocab_size", shape.vocab) +
                           field("max_position_embeddings", shape.positions) +
                           ", \"rope_theta\": 10000, \"tie_word_embeddings\": " + (shape.tied ? "true" : "false") + "}";
  return parse_model_config(json, name);
}

}  // namespace caravan::bench
