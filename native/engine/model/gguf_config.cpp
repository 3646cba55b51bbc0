#include "engine/model/gguf_config.h"

#include <algorithm>
#include <cmath>

#include "engine/io/gguf_blocks.h"
#include "engine/model/rope_table.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

/// Keys below "llama." or "qwen2.", with messages that name them whole.
class Keys {
 public:
  Keys(const GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  [[noreturn]] void fail(const std::string& key, const std::string& problem) const {
    file_.fail("metadata '" + prefix_ + key + "' " + problem);
  }
  std::string full(const std::string& key) const { return prefix_ + key; }
  bool has(const std::string& key) const { return file_.has(prefix_ + key); }

  /// A number, or a list with one for each layer, which must then all be the same.
  int64_t integer(const std::string& key, int64_t most = int64_t{1} << 31) const {
    const auto values = file_.integers(prefix_ + key);
    if (!values || values->empty()) fail(key, "is missing");
    for (const int64_t value : *values) {
      if (value < 1 || value > most)
        fail(key, "is " + std::to_string(value) + "; it must be from 1 to " + std::to_string(most));
      if (value != values->front()) fail(key, "differs between layers, which is not supported");
    }
    return values->front();
  }
  int64_t integer_or(const std::string& key, int64_t fallback) const { return has(key) ? integer(key) : fallback; }

  double number(const std::string& key) const {
    const auto value = file_.number(prefix_ + key);
    if (!value) fail(key, "is missing");
    if (!std::isfinite(*value) || *value < 0.0) fail(key, "is no number of at least 0");
    return *value;
  }
  double number_or(const std::string& key, double fallback) const { return has(key) ? number(key) : fallback; }
  std::string text_or(const std::string& key, const std::string& fallback) const {
    return file_.text(prefix_ + key).value_or(fallback);
  }
  /// Refuses a setting that this engine cannot follow.
  void require_number(const std::string& key, double wanted) const {
    if (has(key) && number(key) != wanted) fail(key, "is " + std::to_string(number(key)) + ", which is not supported");
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

/// The factors of Llama 3.1 and 3.2 are llama3 scaling worked out: where they are exactly that, say so, since the
/// configuration can then be written again; any others are kept as they are.
void read_rope_factors(const GgufFile& file, const GgufTensor& tensor, ModelConfig& config) {
  if (tensor.type != GgmlType::F32 || tensor.elements() != config.head_dim / 2)
    file.fail("tensor 'rope_freqs.weight' must hold " + std::to_string(config.head_dim / 2) + " numbers of F32");
  if (config.rope.kind != RopeKind::plain) file.fail("has both rope_freqs.weight and a rope scaling");
  std::vector<float> divisors(static_cast<size_t>(config.head_dim / 2));
  dequantize_blocks(tensor.type, file.bytes(tensor), divisors.data());
  for (const float divisor : divisors)
    if (!std::isfinite(divisor) || divisor <= 0.0f)
      file.fail("tensor 'rope_freqs.weight' holds a number that is not above 0");
  const ModelConfig plain = config;
  config.rope.kind = RopeKind::llama3;
  config.rope.factor = std::round(double{*std::max_element(divisors.begin(), divisors.end())});
  config.rope.original_max_positions = 8192;
  config.rope.low_freq_factor = 1.0;
  config.rope.high_freq_factor = 4.0;
  double attention_factor = 1.0;
  const std::vector<double> base = rope_frequencies(plain, config.max_positions, &attention_factor);
  const std::vector<double> scaled = rope_frequencies(config, config.max_positions, &attention_factor);
  for (size_t i = 0; i < divisors.size(); ++i) {
    if (std::fabs(base[i] / double{divisors[i]} - scaled[i]) <= 2e-6 * scaled[i]) continue;
    config.rope = RopeScaling{};
    config.rope.kind = RopeKind::divisors;
    config.rope.divisors = divisors;
    return;
  }
}

void read_rope(const GgufFile& file, const Keys& keys, ModelConfig& config) {
  config.rope_theta = keys.number_or("rope.freq_base", 10000.0);
  if (config.rope_theta <= 0.0) keys.fail("rope.freq_base", "must be above 0");
  if (keys.integer_or("rope.dimension_count", config.head_dim) != config.head_dim)
    keys.fail("rope.dimension_count", "is not the size of a head; rotating only a part of it is not supported");
  config.rope.original_max_positions = keys.integer_or("rope.scaling.original_context_length", config.max_positions);
  const bool old_linear = keys.has("rope.scale_linear") && !keys.has("rope.scaling.type");
  const std::string kind = keys.text_or("rope.scaling.type", old_linear ? "linear" : "none");
  config.rope.factor =
      kind == "none" ? 1.0 : keys.number_or("rope.scaling.factor", keys.number_or("rope.scale_linear", 1.0));
  if (kind != "none" && config.rope.factor < 1.0) keys.fail("rope.scaling.factor", "must be at least 1");
  if (kind == "linear") {
    if (config.rope.factor != 1.0) config.rope.kind = RopeKind::linear;
  } else if (kind == "yarn") {
    config.rope.kind = RopeKind::yarn;
    keys.require_number("rope.scaling.yarn_ext_factor", 1.0);
    keys.require_number("rope.scaling.yarn_attn_factor", 1.0);
    keys.require_number("rope.scaling.yarn_log_multiplier", 0.0);
    config.rope.beta_fast = keys.number_or("rope.scaling.yarn_beta_fast", 32.0);
    config.rope.beta_slow = keys.number_or("rope.scaling.yarn_beta_slow", 1.0);
    // There it multiplies yarn's own factor; in config.json it replaces it.
    const double attention = keys.number_or("rope.scaling.attn_factor", 1.0);
    if (attention != 1.0) config.rope.attention_factor = attention * (0.1 * std::log(config.rope.factor) + 1.0);
  } else if (kind != "none") {
    keys.fail("rope.scaling.type", "is \"" + kind + "\"; supported are none, linear and yarn");
  }
  if (const GgufTensor* factors = file.find("rope_freqs.weight")) read_rope_factors(file, *factors, config);
}

std::string read_architecture(const GgufFile& file) {
  const auto architecture = file.text("general.architecture");
  if (!architecture) file.fail("metadata 'general.architecture' is missing");
  if (*architecture != "llama" && *architecture != "qwen2")
    throw EngineError("unsupported_architecture", file.path() + ": general.architecture is \"" + *architecture +
                                                      "\"; of GGUF files llama and qwen2 are supported");
  return *architecture;
}

void add_id(const GgufFile& file, const char* key, std::vector<int32_t>& ids) {
  const auto id = file.integer(key);
  if (!id) return;
  if (*id < 0 || *id > INT32_MAX) file.fail("metadata '" + std::string(key) + "' is no token id");
  if (std::find(ids.begin(), ids.end(), *id) == ids.end()) ids.push_back(static_cast<int32_t>(*id));
}

}  // namespace

ModelConfig read_gguf_config(const GgufFile& file) {
  ModelConfig config;
  const std::string architecture = read_architecture(file);
  const int64_t parts = file.integer("split.count").value_or(0);
  if (parts > 1)
    throw EngineError("bad_file", file.path() + ": is one of " + std::to_string(parts) +
                                      " parts; join them first (llama-gguf-split --merge)");
  const Keys keys(file, architecture + ".");
  if (keys.has("expert_count") && file.integer(keys.full("expert_count")) != 0)
    throw EngineError("unsupported_architecture", file.path() + ": is a mixture of experts (" +
                                                      keys.full("expert_count") + "); take a dense model as the base");
  const GgufTensor* embedding = file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2)
    throw EngineError("bad_file", file.path() +
                                      ": holds no weights (token_embd.weight), at most a vocabulary, which "
                                      "serves tokenize alone; give a GGUF file with the whole model");
  const bool windowed = architecture == "llama" && keys.has("attention.sliding_window") &&
                        file.integer(keys.full("attention.sliding_window")) != 0;
  config.family = architecture == "qwen2" ? "qwen2" : windowed ? "mistral" : "llama";
  config.architecture = config.family == "qwen2"     ? "Qwen2ForCausalLM"
                        : config.family == "mistral" ? "MistralForCausalLM"
                                                     : "LlamaForCausalLM";
  config.hidden_size = keys.integer("embedding_length");
  config.intermediate_size = keys.integer("feed_forward_length");
  config.num_layers = keys.integer("block_count", 4096);
  config.num_heads = keys.integer("attention.head_count");
  config.num_kv_heads = keys.integer_or("attention.head_count_kv", config.num_heads);
  if (config.num_heads % config.num_kv_heads != 0)
    keys.fail("attention.head_count_kv", "does not divide attention.head_count");
  if (!keys.has("attention.key_length") && config.hidden_size % config.num_heads != 0)
    keys.fail("attention.head_count", "does not divide embedding_length, and attention.key_length is missing");
  config.head_dim = keys.integer_or("attention.key_length", config.hidden_size / config.num_heads);
  if (config.head_dim % 2 != 0) keys.fail("attention.key_length", "is odd; rotary embedding needs an even one");
  if (keys.integer_or("attention.value_length", config.head_dim) != config.head_dim)
    keys.fail("attention.value_length", "differs from the length of keys, which is not supported");
  config.vocab_size = embedding->shape[0];
  config.max_positions = keys.integer("context_length");
  config.norm_eps = static_cast<float>(keys.number("attention.layer_norm_rms_epsilon"));
  config.tied_embeddings = file.find("output.weight") == nullptr;
  config.qkv_bias = architecture == "qwen2" || file.find("blk.0.attn_q.bias") != nullptr;
  config.o_bias = file.find("blk.0.attn_output.bias") != nullptr;
  config.mlp_bias = file.find("blk.0.ffn_gate.bias") != nullptr;
  read_rope(file, keys, config);
  config.windows.assign(static_cast<size_t>(config.num_layers),
                        windowed ? keys.integer("attention.sliding_window") : 0);
  add_id(file, "tokenizer.ggml.eos_token_id", config.eos_ids);
  add_id(file, "tokenizer.ggml.eot_token_id", config.eos_ids);
  add_id(file, "tokenizer.ggml.bos_token_id", config.bos_ids);
  return config;
}

}  // namespace caravan
