#include "engine/model/gguf_source.h"

#include <array>
#include <charconv>
#include <set>
#include <string_view>

#include "engine/model/gguf_config.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

struct Renamed {
  std::string_view ggml;
  std::string_view hugging_face;
};

constexpr std::array<Renamed, 9> layer_names{{{"attn_norm", "input_layernorm"},
                                              {"ffn_norm", "post_attention_layernorm"},
                                              {"attn_q", "self_attn.q_proj"},
                                              {"attn_k", "self_attn.k_proj"},
                                              {"attn_v", "self_attn.v_proj"},
                                              {"attn_output", "self_attn.o_proj"},
                                              {"ffn_gate", "mlp.gate_proj"},
                                              {"ffn_up", "mlp.up_proj"},
                                              {"ffn_down", "mlp.down_proj"}}};
constexpr std::array<Renamed, 3> outer_names{{{"token_embd.weight", "model.embed_tokens.weight"},
                                              {"output_norm.weight", "model.norm.weight"},
                                              {"output.weight", "lm_head.weight"}}};

/// Hugging Face's name of "blk.12.attn_q.weight"; empty for one that no supported architecture has.
std::string hugging_face_name(std::string_view name, int64_t num_layers) {
  for (const Renamed& outer : outer_names)
    if (name == outer.ggml) return std::string(outer.hugging_face);
  if (!name.starts_with("blk.")) return {};
  name.remove_prefix(4);
  const size_t dot = name.find('.');
  if (dot == std::string_view::npos) return {};
  const std::string_view index = name.substr(0, dot);
  int64_t layer = -1;
  const auto [end, error] = std::from_chars(index.data(), index.data() + index.size(), layer);
  if (error != std::errc() || end != index.data() + index.size() || std::to_string(layer) != index) return {};
  if (layer < 0 || layer >= num_layers) return {};
  name.remove_prefix(dot + 1);
  const size_t last = name.find('.');
  if (last == std::string_view::npos) return {};
  const std::string_view kind = name.substr(last);
  if (kind != ".weight" && kind != ".bias") return {};
  for (const Renamed& part : layer_names)
    if (name.substr(0, last) == part.ggml)
      return "model.layers." + std::string(index) + "." + std::string(part.hugging_face) + std::string(kind);
  return {};
}

/// Whether the configuration has this tensor's bias.
bool has_bias(const ModelConfig& config, std::string_view name) {
  if (name.find("self_attn.o_proj") != std::string_view::npos) return config.o_bias;
  if (name.find("self_attn.") != std::string_view::npos) return config.qkv_bias;
  return name.find("mlp.") != std::string_view::npos && config.mlp_bias;
}

}  // namespace

GgufSource::GgufSource(const std::string& path) : file_(GgufFile::open(path)), config_(read_gguf_config(file_)) {
  for (const auto& [name, tensor] : file_.tensors()) {
    if (name == "rope_freqs.weight") continue;  // a part of the configuration
    const std::string known = hugging_face_name(name, config_.num_layers);
    if (known.empty() || (known.ends_with(".bias") && !has_bias(config_, known)))
      throw EngineError("unsupported_architecture",
                        path + ": holds the tensor '" + name + "', which no supported architecture has at that place");
    by_name_.emplace(known, &tensor);
  }
}

std::optional<ModelSource::Stored> GgufSource::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return std::nullopt;
  return Stored{found->second->shape, found->second->size, file_.path() + ": tensor " + found->second->name};
}

int64_t GgufSource::interleaved_heads(const std::string& name) const {
  if (config_.family == "qwen2") return 0;
  if (name.find(".q_proj.") != std::string::npos) return config_.num_heads;
  return name.find(".k_proj.") != std::string::npos ? config_.num_kv_heads : 0;
}

void GgufSource::read(const std::string& name, Ptr out) const {
  const GgufTensor& tensor = *by_name_.at(name);
  const GgmlLayout& layout = ggml_layout(tensor.type);
  const std::span<const std::byte> bytes = file_.bytes(tensor);
  const int64_t heads = interleaved_heads(name);
  const bool is_vector = tensor.shape.size() < 2;
  // Rows move whole, so the rotary order is undone on rows of blocks. A vector's elements are rows of one element.
  const int64_t rows = is_vector ? 1 : tensor.shape[0];
  const int64_t cols = tensor.elements() / rows;
  const size_t row_bytes = static_cast<size_t>(cols / layout.block) * layout.bytes;
  const int64_t half = config_.head_dim / 2;
  // Row s * half + i of a head stands at 2 i + s there.
  const auto stored_at = [&](int64_t row) {
    if (heads == 0) return row;
    const int64_t in_head = row % config_.head_dim;
    return row - in_head + 2 * (in_head % half) + in_head / half;
  };
  std::vector<float> values(static_cast<size_t>(cols));
  dispatch(out.dtype, [&]<typename T>() {
    T* to = out.as<T>();
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t from = is_vector ? row : stored_at(row);
      dequantize_blocks(tensor.type, bytes.subspan(static_cast<size_t>(from) * row_bytes, row_bytes), values.data());
      for (int64_t i = 0; i < cols; ++i)
        to[row * cols + i] = T(values[static_cast<size_t>(is_vector ? stored_at(i) : i)]);
    }
  });
}

std::vector<std::string> GgufSource::stored_types() const {
  std::set<std::string> types;
  for (const auto& [name, tensor] : file_.tensors()) types.insert(ggml_layout(tensor.type).name);
  return {types.begin(), types.end()};
}

uint64_t GgufSource::tensor_bytes() const {
  uint64_t sum = 0;
  for (const auto& [name, tensor] : file_.tensors()) sum += tensor.size;
  return sum;
}

}  // namespace caravan
