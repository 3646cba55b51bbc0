#include "engine/model/base_model.h"

#include "engine/platform/error.h"
#include "kernels/transfer.h"

namespace caravan {

const char* projection_name(Proj proj) {
  static constexpr std::array<const char*, num_projections> names = {
      "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
      "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
  return names[static_cast<size_t>(proj)];
}

int64_t projection_rows(const ModelConfig& config, Proj proj) {
  switch (proj) {
    case Proj::q: return config.q_size();
    case Proj::k:
    case Proj::v: return config.kv_size();
    case Proj::gate:
    case Proj::up: return config.intermediate_size;
    case Proj::o:
    case Proj::down: break;
  }
  return config.hidden_size;
}

int64_t projection_cols(const ModelConfig& config, Proj proj) {
  switch (proj) {
    case Proj::o: return config.q_size();
    case Proj::down: return config.intermediate_size;
    default: return config.hidden_size;
  }
}

bool projection_has_bias(const ModelConfig& config, Proj proj) {
  switch (proj) {
    case Proj::q:
    case Proj::k:
    case Proj::v: return config.qkv_bias;
    case Proj::o: return config.o_bias;
    default: return config.mlp_bias;
  }
}

const char* base_dtype_name(BaseDType dtype) {
  switch (dtype) {
    case BaseDType::f32: return "f32";
    case BaseDType::bf16: return "bf16";
    case BaseDType::nf4: return "nf4";
  }
  return "f32";
}

BaseDType parse_base_dtype(const std::string& name) {
  for (const BaseDType dtype : {BaseDType::f32, BaseDType::bf16, BaseDType::nf4}) {
    if (name == base_dtype_name(dtype)) return dtype;
  }
  throw EngineError("bad_option", "baseDtype is \"" + name + "\"; it must be f32, bf16 or nf4");
}

StoredWeight::StoredWeight(const Exec& exec, Nf4Storage quantised)
    : rows_(quantised.rows), cols_(quantised.cols), quantised_(std::move(quantised)), view_(quantised_.view()) {
  if (exec.device == Device::cpu) return;
  const auto aligned = [](size_t bytes) { return (bytes + 255) / 256 * 256; };
  const size_t packed = aligned(quantised_.packed.size()), codes = aligned(quantised_.absmax_u8.size());
  const size_t absmax = aligned(quantised_.absmax.size() * sizeof(float));
  data_ = DeviceBuffer(exec.device, packed + codes + absmax + aligned(quantised_.absmax2.size() * sizeof(float)));
  char* at = data_.data();
  const auto send = [&](const auto& values, size_t room) -> char* {
    if (values.empty()) return nullptr;
    upload(exec, at, values.data(), values.size() * sizeof(values[0]));
    at += room;
    return at - room;
  };
  view_.packed = reinterpret_cast<uint8_t*>(send(quantised_.packed, packed));
  view_.absmax_u8 = reinterpret_cast<uint8_t*>(send(quantised_.absmax_u8, codes));
  view_.absmax = reinterpret_cast<float*>(send(quantised_.absmax, absmax));
  view_.absmax2 = reinterpret_cast<float*>(send(quantised_.absmax2, 0));
  quantised_ = {};
}

StoredWeight& StoredWeight::operator=(StoredWeight&& other) noexcept {
  data_ = std::move(other.data_);
  dtype_ = other.dtype_;
  rows_ = other.rows_;
  cols_ = other.cols_;
  quantised_ = std::move(other.quantised_);
  view_ = quantised_.packed.empty() ? other.view_ : quantised_.view();
  return *this;
}

Weight StoredWeight::weight() const {
  return quantised() ? Weight::of(view_) : Weight::of(ConstPtr(data_.data(), dtype_), rows_, cols_);
}

size_t BaseModel::bytes() const {
  size_t total = embedding.bytes() + head.bytes() + final_norm.bytes();
  for (const BaseLayer& layer : layers) {
    total += layer.input_norm.bytes() + layer.post_norm.bytes() + layer.q_norm.bytes() + layer.k_norm.bytes();
    for (const StoredWeight& weight : layer.projections) total += weight.bytes();
    for (const DeviceBuffer& bias : layer.biases) total += bias.bytes();
  }
  return total;
}

}  // namespace caravan
