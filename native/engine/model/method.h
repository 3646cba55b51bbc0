// What trains: the four methods and their numbers.
#pragma once

#include <cstdint>
#include <string>

namespace caravan {

/// `base` trains nothing: the stored model as it is.
enum class Method : uint8_t { base, lora, pesc, full, upcycle };

struct MethodOptions {
  Method method = Method::base;
  int64_t lora_rank = 64;    // R; lora and pesc
  float lora_alpha = 16.0f;  // scale = alpha / R
  float lora_dropout = 0.1f;
  int64_t num_experts = 8;    // E; pesc and upcycle
  int64_t top_k = 2;          // K
  int64_t adapter_dim = 512;  // A; pesc
  float adapter_dropout = 0.1f;
  float adapter_scale = 1.0f;         // s
  float balance_coefficient = 0.01f;  // alpha of the balance loss

  /// `lora_rank` is 0 where LoRA was merged into the weights: published sparse models.
  bool has_lora() const { return (method == Method::lora || method == Method::pesc) && lora_rank > 0; }
  bool has_adapters() const { return method == Method::pesc; }
  bool has_experts() const { return method == Method::pesc || method == Method::upcycle; }
  /// Every weight of the model is a trainable parameter.
  bool trains_everything() const { return method == Method::full || method == Method::upcycle; }
};

const char* method_name(Method method);
/// @throws EngineError bad_option
Method parse_method(const std::string& name);
/// @throws EngineError bad_option, naming the field: top-k over experts, rank < 1, dropout outside [0, 1).
void check_method_options(const MethodOptions& options);

}  // namespace caravan
