#include "engine/model/model_config.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include <nlohmann/json.hpp>

#include "engine/io/gguf.h"
#include "engine/model/config_reader.h"
#include "engine/model/gguf_config.h"
#include "engine/model/stored_experts.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

using Json = nlohmann::json;
using Reader = ConfigReader;

const std::set<std::string> known_architectures = {"LlamaForCausalLM",  "YiForCausalLM",    "MistralForCausalLM",
                                                   "Qwen2ForCausalLM",  "Qwen3ForCausalLM", "SmolLM3ForCausalLM",
                                                   "MixtralForCausalLM"};

std::string read_architecture(const Reader& reader) {
  if (!reader.has("architectures")) {
    reader.fail("architectures", "is missing; it must be a list with one name, such as [\"LlamaForCausalLM\"]");
  }
  const Json& value = reader.at("architectures");
  if (!value.is_array() || value.empty() || !value[0].is_string()) {
    reader.fail("architectures", "is " + value.dump() + "; it must be a list with one name");
  }
  std::string name = value[0].get<std::string>();
  // Published sparse models name the file of their code too: "modeling_camelidae.LlamaForCausalLM".
  if (name.starts_with("modeling_")) name = name.substr(name.rfind('.') + 1);
  if (known_architectures.count(name) == 0) {
    throw EngineError("unsupported_architecture",
                      reader.file() + ": architectures is \"" + name +
                          "\"; supported are LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, "
                          "SmolLM3ForCausalLM, YiForCausalLM, MixtralForCausalLM, and Camelidae, Qwen2idae and "
                          "sparsetral as published");
  }
  return name;
}

/// `rope` is rope_scaling, or the newer rope_parameters that also holds the base.
RopeScaling read_rope_scaling(const Reader& rope, int64_t max_positions) {
  RopeScaling scaling;
  const std::string kind = rope.text_or("rope_type", rope.text_or("type", "default"));
  scaling.factor = rope.number_or("factor", 1.0);
  scaling.original_max_positions = rope.integer_or("original_max_position_embeddings", max_positions);
  if (kind == "default") {
    scaling.factor = 1.0;
    return scaling;
  }
  rope.number("factor", 1.0);
  if (kind == "linear") {
    scaling.kind = RopeKind::linear;
  } else if (kind == "dynamic") {
    scaling.kind = RopeKind::dynamic;
  } else if (kind == "llama3") {
    scaling.kind = RopeKind::llama3;
    scaling.low_freq_factor = rope.number("low_freq_factor");
    scaling.high_freq_factor = rope.number("high_freq_factor");
    rope.integer("original_max_position_embeddings");
    if (scaling.high_freq_factor <= scaling.low_freq_factor) {
      rope.fail("high_freq_factor", "must be above low_freq_factor");
    }
  } else if (kind == "yarn") {
    scaling.kind = RopeKind::yarn;
    scaling.beta_fast = rope.number_or("beta_fast", 32.0);
    scaling.beta_slow = rope.number_or("beta_slow", 1.0);
    scaling.attention_factor = rope.number_or("attention_factor", 0.0);
    scaling.mscale = rope.number_or("mscale", 0.0);
    scaling.mscale_all_dim = rope.number_or("mscale_all_dim", 0.0);
    scaling.truncate = rope.boolean_or("truncate", true);
  } else {
    rope.fail(rope.has("rope_type") ? "rope_type" : "type",
              "is \"" + kind + "\"; supported are default, linear, dynamic, llama3 and yarn");
  }
  return scaling;
}

void read_rope(const Reader& reader, ModelConfig& config) {
  config.rope_theta = reader.number_or("rope_theta", 10000.0);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (!reader.has(key)) continue;
    if (!reader.at(key).is_object()) reader.fail(key, "must be an object or null");
    const Reader rope(reader.at(key), reader.file(), std::string(key) + ".");
    config.rope_theta = rope.number_or("rope_theta", config.rope_theta);
    config.rope = read_rope_scaling(rope, config.max_positions);
    break;
  }
  if (config.rope_theta <= 0.0) reader.fail("rope_theta", "must be above 0");
  if (reader.has("partial_rotary_factor") && reader.number("partial_rotary_factor") != 1.0) {
    reader.fail("partial_rotary_factor", "is not 1; rotating only a part of each head is not supported");
  }
}

/// Mistral: every layer. Qwen: only with use_sliding_window, from max_window_layers on. `layer_types`, where a newer
/// file has it, decides layer by layer.
void read_windows(const Reader& reader, ModelConfig& config) {
  config.windows.assign(static_cast<size_t>(config.num_layers), 0);
  const bool partly = config.family == "qwen2" || config.family == "qwen3" || config.family == "smollm3";
  if (config.family == "llama" || !reader.has("sliding_window")) return;
  if (partly && !reader.boolean_or("use_sliding_window", false)) return;
  const int64_t window = reader.integer("sliding_window");
  const int64_t first = partly ? reader.integer_or("max_window_layers", config.num_layers, 0) : 0;
  const bool typed = reader.has("layer_types");
  if (typed && (!reader.at("layer_types").is_array() ||
                static_cast<int64_t>(reader.at("layer_types").size()) != config.num_layers)) {
    reader.fail("layer_types", "must be a list of num_hidden_layers names");
  }
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const bool slides = typed ? reader.at("layer_types")[static_cast<size_t>(i)] == "sliding_attention" : i >= first;
    if (slides) config.windows[static_cast<size_t>(i)] = window;
  }
}

/// SmolLM3: every fourth layer leaves positions to the others, or those that no_rope_layers marks with 0.
void read_no_rope(const Reader& reader, ModelConfig& config) {
  if (config.family != "smollm3") return;
  config.no_rope.assign(static_cast<size_t>(config.num_layers), 0);
  const bool listed = reader.has("no_rope_layers");
  if (listed && (!reader.at("no_rope_layers").is_array() ||
                 static_cast<int64_t>(reader.at("no_rope_layers").size()) != config.num_layers)) {
    reader.fail("no_rope_layers", "must be a list of num_hidden_layers numbers");
  }
  const int64_t interval = reader.integer_or("no_rope_layer_interval", 4);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const bool rotates = listed ? reader.at("no_rope_layers")[static_cast<size_t>(i)] != 0 : (i + 1) % interval != 0;
    config.no_rope[static_cast<size_t>(i)] = rotates ? 0 : 1;
  }
}

std::string family_of(const std::string& architecture) {
  if (architecture == "MistralForCausalLM" || architecture == "MixtralForCausalLM") return "mistral";
  if (architecture == "Qwen2ForCausalLM") return "qwen2";
  if (architecture == "Qwen3ForCausalLM") return "qwen3";
  if (architecture == "SmolLM3ForCausalLM") return "smollm3";
  return "llama";
}

void refuse_what_we_lack(const Reader& reader) {
  const std::string act = reader.text_or("hidden_act", "silu");
  if (act != "silu" && act != "swish") reader.fail("hidden_act", "is \"" + act + "\"; only silu is supported");
  if (!reader.has("quantization_config")) return;
  if (!reader.at("quantization_config").is_object()) reader.fail("quantization_config", "must be an object or null");
  const Reader quantised(reader.at("quantization_config"), reader.file(), "quantization_config.");
  const std::string method = quantised.text_or("quant_method", "bitsandbytes");
  if (method != "bitsandbytes" || !quantised.boolean_or("load_in_4bit", false)) {
    reader.fail("quantization_config", "says that the weights are stored quantised by " + method +
                                           ", and not in 4 bits by bitsandbytes; take the model's original weights");
  }
  if (quantised.text_or("bnb_4bit_quant_type", "fp4") != "nf4") {
    quantised.fail("bnb_4bit_quant_type", "is not \"nf4\", the only one supported; take the model's original weights");
  }
  if (quantised.text_or("bnb_4bit_quant_storage", "uint8") != "uint8") {
    quantised.fail("bnb_4bit_quant_storage", "is not \"uint8\", the only one supported");
  }
}

}  // namespace

ModelConfig parse_model_config(const std::string& json, const std::string& file) {
  Json parsed;
  try {
    parsed = Json::parse(json);
  } catch (const Json::exception& error) {
    throw EngineError("bad_file", file + ": not valid JSON (" + error.what() + "); fetch the file again");
  }
  if (!parsed.is_object()) throw EngineError("bad_file", file + ": must hold one JSON object; fetch the file again");
  const Reader reader(parsed, file);

  ModelConfig config;
  config.architecture = read_architecture(reader);
  config.family = family_of(config.architecture);
  refuse_what_we_lack(reader);
  config.hidden_size = reader.integer("hidden_size");
  config.intermediate_size = reader.integer("intermediate_size");
  config.num_layers = reader.integer("num_hidden_layers", 1, 4096);
  config.num_heads = reader.integer("num_attention_heads");
  if (config.family != "llama" && !parsed.contains("num_key_value_heads")) reader.integer("num_key_value_heads");
  config.num_kv_heads = reader.integer_or("num_key_value_heads", config.num_heads);
  if (config.num_heads % config.num_kv_heads != 0) {
    reader.fail("num_key_value_heads", "is " + std::to_string(config.num_kv_heads) +
                                           "; it must divide num_attention_heads (" + std::to_string(config.num_heads) +
                                           ")");
  }
  if (!reader.has("head_dim") && config.family != "qwen3" && config.hidden_size % config.num_heads != 0) {
    reader.fail("head_dim", "is missing, and num_attention_heads does not divide hidden_size; add head_dim");
  }
  config.head_dim =
      reader.integer_or("head_dim", config.family == "qwen3" ? 128 : config.hidden_size / config.num_heads);
  if (config.head_dim % 2 != 0) reader.fail("head_dim", "is odd; rotary embedding needs an even one");
  config.vocab_size = reader.integer("vocab_size");
  config.max_positions = reader.integer("max_position_embeddings");
  config.norm_eps = static_cast<float>(reader.number("rms_norm_eps"));
  config.tied_embeddings = reader.boolean_or("tie_word_embeddings", config.family == "smollm3");

  const bool attention_bias = config.family != "mistral" && reader.boolean_or("attention_bias", false);
  config.qkv_bias = attention_bias || config.family == "qwen2";  // Qwen2 has no key for it
  config.o_bias = attention_bias && config.family != "qwen2";
  config.mlp_bias = (config.family == "llama" || config.family == "smollm3") && reader.boolean_or("mlp_bias", false);
  config.qk_norm = config.family == "qwen3";
  read_rope(reader, config);
  read_windows(reader, config);
  read_no_rope(reader, config);
  config.eos_ids = reader.ids("eos_token_id");
  config.bos_ids = reader.ids("bos_token_id");
  config.stored_dtype = reader.text_or("torch_dtype", reader.text_or("dtype", ""));
  read_stored_experts(reader, config);
  return config;
}

ModelConfig read_model_config(const std::string& path) {
  if (is_gguf_file(path)) return read_gguf_config(GgufFile::open(path));
  const std::string file = path + "/config.json";
  std::ifstream stream(file, std::ios::binary);
  if (!stream) {
    throw EngineError("bad_file", file + ": cannot be read; a model folder must hold config.json and its safetensors");
  }
  std::ostringstream text;
  text << stream.rdbuf();
  return parse_model_config(text.str(), file);
}

int64_t ModelConfig::parameter_count() const {
  const int64_t attention = hidden_size * (q_size() + 2 * kv_size()) + q_size() * hidden_size +
                            (qkv_bias ? q_size() + 2 * kv_size() : 0) + (o_bias ? hidden_size : 0) +
                            (qk_norm ? 2 * head_dim : 0);
  const int64_t mlp = 3 * hidden_size * intermediate_size + (mlp_bias ? 2 * intermediate_size + hidden_size : 0);
  const int64_t embedding = vocab_size * hidden_size * (tied_embeddings ? 1 : 2);
  return embedding + hidden_size + num_layers * (attention + mlp + 2 * hidden_size);
}

int64_t ModelConfig::max_sequence() const {
  const double scaled = rope.kind == RopeKind::yarn ? rope.factor * static_cast<double>(rope.original_max_positions)
                        : rope.kind == RopeKind::dynamic ? rope.factor * static_cast<double>(max_positions)
                                                         : 0.0;
  return std::max(max_positions, static_cast<int64_t>(scaled));
}

namespace {

Json rope_json(const ModelConfig& config) {
  const RopeScaling& rope = config.rope;
  switch (rope.kind) {
    case RopeKind::plain: return nullptr;
    case RopeKind::linear: return {{"rope_type", "linear"}, {"factor", rope.factor}};
    case RopeKind::dynamic: return {{"rope_type", "dynamic"}, {"factor", rope.factor}};
    case RopeKind::llama3:
      return {{"rope_type", "llama3"},
              {"factor", rope.factor},
              {"low_freq_factor", rope.low_freq_factor},
              {"high_freq_factor", rope.high_freq_factor},
              {"original_max_position_embeddings", rope.original_max_positions}};
    case RopeKind::divisors:
      throw EngineError("bad_option",
                        "this model scales each rotary frequency by a factor of its own, which config.json cannot say; "
                        "start from the original model's folder to write one");
    case RopeKind::yarn: break;
  }
  Json yarn = {{"rope_type", "yarn"},
               {"factor", rope.factor},
               {"original_max_position_embeddings", rope.original_max_positions},
               {"beta_fast", rope.beta_fast},
               {"beta_slow", rope.beta_slow},
               {"truncate", rope.truncate}};
  if (rope.attention_factor > 0.0) yarn["attention_factor"] = rope.attention_factor;
  if (rope.mscale > 0.0) yarn["mscale"] = rope.mscale;
  if (rope.mscale_all_dim > 0.0) yarn["mscale_all_dim"] = rope.mscale_all_dim;
  return yarn;
}

}  // namespace

std::string write_model_config(const ModelConfig& config, const std::string& dtype) {
  nlohmann::ordered_json json = {
      {"architectures", {config.architecture}},
      {"model_type", config.family},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"num_hidden_layers", config.num_layers},
      {"num_attention_heads", config.num_heads},
      {"num_key_value_heads", config.num_kv_heads},
      {"head_dim", config.head_dim},
      {"vocab_size", config.vocab_size},
      {"max_position_embeddings", config.max_positions},
      {"rms_norm_eps", static_cast<double>(config.norm_eps)},
      {"rope_theta", config.rope_theta},
      {"rope_scaling", rope_json(config)},
      {"tie_word_embeddings", config.tied_embeddings},
      {"hidden_act", "silu"},
      {"torch_dtype", dtype},
  };
  // 1e-5 as a float would print 9.999999747378752e-06: write the shortest decimal that reads back to the same float.
  char eps[32];
  for (int digits = 1; digits <= 9; ++digits) {
    std::snprintf(eps, sizeof eps, "%.*g", digits, static_cast<double>(config.norm_eps));
    if (std::strtof(eps, nullptr) == config.norm_eps) break;
  }
  json["rms_norm_eps"] = std::strtod(eps, nullptr);
  if (config.family != "qwen2" && config.family != "mistral") json["attention_bias"] = config.qkv_bias;
  if (config.family == "llama" || config.family == "smollm3") json["mlp_bias"] = config.mlp_bias;
  if (!config.no_rope.empty()) {
    std::vector<int> rotates;
    for (const uint8_t not_rotated : config.no_rope) rotates.push_back(not_rotated == 0 ? 1 : 0);
    json["no_rope_layers"] = rotates;
  }
  if (!config.bos_ids.empty()) json["bos_token_id"] = config.bos_ids[0];
  if (config.eos_ids.size() == 1) json["eos_token_id"] = config.eos_ids[0];
  if (config.eos_ids.size() > 1) json["eos_token_id"] = config.eos_ids;
  int64_t first = 0;
  while (first < config.num_layers && config.windows[static_cast<size_t>(first)] == 0) ++first;
  if (first < config.num_layers) {
    json["sliding_window"] = config.windows[static_cast<size_t>(first)];
    if (config.family != "mistral") {
      json["use_sliding_window"] = true;
      json["max_window_layers"] = first;
    }
  }
  return json.dump(2) + "\n";
}

}  // namespace caravan
