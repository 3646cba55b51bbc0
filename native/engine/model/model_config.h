// What config.json of a Llama-family model says, in our names. Hugging Face's own keys stay in model_config.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caravan {

enum class RopeKind : uint8_t { plain, linear, dynamic, llama3, yarn, divisors };

/// Scaling of the rotary frequencies (transformers' modeling_rope_utils). Fields that a kind does not use keep their
/// defaults.
struct RopeScaling {
  RopeKind kind = RopeKind::plain;
  double factor = 1.0;
  int64_t original_max_positions = 0;  // llama3, yarn
  double low_freq_factor = 1.0;        // llama3
  double high_freq_factor = 4.0;       // llama3
  double beta_fast = 32.0;             // yarn
  double beta_slow = 1.0;              // yarn
  double attention_factor = 0.0;       // yarn; 0: from factor and the two mscales
  double mscale = 0.0;                 // yarn
  double mscale_all_dim = 0.0;         // yarn
  bool truncate = true;                // yarn
  std::vector<float> divisors;         // divisors: (head_dim / 2), one for each frequency; GGUF alone has them
};

/// Experts that a stored model brings along: PESC's adapters behind the shared FFN (the published Camelidae, Qwen2idae and
/// sparsetral), or whole FFNs (Mixtral).
struct StoredExperts {
  int64_t num_experts = 0;  // E; 0: a dense model
  int64_t top_k = 0;        // K
  int64_t adapter_dim = 0;  // A; 0: whole FFNs
  float adapter_scale = 1.0f;

  bool any() const { return num_experts > 0; }
};

/// A decoder of the Llama family: RMSNorm, RoPE, grouped-query attention, SwiGLU.
struct ModelConfig {
  std::string architecture;       // as config.json spells it: "LlamaForCausalLM"
  std::string family;             // llama, mistral, qwen2, qwen3, smollm3
  int64_t hidden_size = 0;        // C
  int64_t intermediate_size = 0;  // F
  int64_t num_layers = 0;         // L
  int64_t num_heads = 0;          // NH
  int64_t num_kv_heads = 0;       // NKV
  int64_t head_dim = 0;           // need not be C / NH
  int64_t vocab_size = 0;         // V
  int64_t max_positions = 0;
  float norm_eps = 1e-5f;
  double rope_theta = 10000.0;
  RopeScaling rope;
  bool tied_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;
  std::vector<int64_t> windows;  // (L) sliding window of each layer, 0: none
  std::vector<uint8_t> no_rope;  // (L) 1: a layer that does not rotate its queries and keys (SmolLM3); empty: all do
  std::vector<int32_t> eos_ids;  // config.json's eos_token_id, a number or a list
  std::vector<int32_t> bos_ids;
  std::string stored_dtype;  // torch_dtype, for display; may be empty
  StoredExperts experts;

  int64_t q_size() const { return num_heads * head_dim; }
  int64_t kv_size() const { return num_kv_heads * head_dim; }
  /// Number of parameters of the dense model, experts left out; a tied head counts once.
  int64_t parameter_count() const;
  /// Length of the longest sequence: max_positions, stretched where yarn or dynamic scaling does.
  int64_t max_sequence() const;
};

/// Reads `path`/config.json, or the metadata of the GGUF file that `path` is.
/// @throws EngineError bad_file (unreadable, not JSON, a key missing or of the wrong type or range: named with its
/// mend) or unsupported_architecture.
ModelConfig read_model_config(const std::string& path);
/// The same from text; `file` is what messages call it.
ModelConfig parse_model_config(const std::string& json, const std::string& file);
/// config.json text that read_model_config and transformers read back to the same model.
std::string write_model_config(const ModelConfig& config, const std::string& dtype);

}  // namespace caravan
