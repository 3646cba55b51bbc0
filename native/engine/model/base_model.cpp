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

StoredWeight::StoredWeight(const Exec& exec, ConstPtr values, int64_t rows, int64_t cols, bool double_quant,
                           BufferPool& pool)
    : rows_(rows), cols_(cols) {
  Nf4Arrays arrays;
  data_ = pool.take(nf4_place(arrays, nullptr, rows, cols, double_quant));
  nf4_place(arrays, data_.data(), rows, cols, double_quant);
  view_ = nf4_quantize_into(exec, arrays, values, rows, cols);
}

StoredWeight::StoredWeight(const Exec& exec, const Nf4Storage& quantised, BufferPool& pool)
    : rows_(quantised.rows), cols_(quantised.cols) {
  const bool double_quant = quantised.absmax.empty();
  Nf4Arrays arrays;
  data_ = pool.take(nf4_place(arrays, nullptr, rows_, cols_, double_quant));
  nf4_place(arrays, data_.data(), rows_, cols_, double_quant);
  const auto send = [&](auto* to, const auto& values) {
    if (!values.empty()) upload(exec, to, values.data(), values.size() * sizeof(values[0]));
  };
  send(arrays.packed, quantised.packed);
  send(arrays.absmax, quantised.absmax);
  send(arrays.absmax_u8, quantised.absmax_u8);
  send(arrays.absmax2, quantised.absmax2);
  view_ = {arrays.packed, arrays.absmax, arrays.absmax_u8, arrays.absmax2, quantised.offset, rows_, cols_};
}

Weight StoredWeight::weight() const {
  return quantised() ? Weight::of(view_) : Weight::of(ConstPtr(data_.data(), dtype_), rows_, cols_);
}

size_t base_model_bytes(Device device, const ModelConfig& config, const BaseOptions& options) {
  size_t total = 0;
  const auto add_bytes = [&](size_t bytes) { total += device == Device::cuda ? BufferPool::padded(bytes) : bytes; };
  const auto add = [&](int64_t count, DType dtype) { add_bytes(static_cast<size_t>(count) * size_of(dtype)); };
  const DType stored = options.dtype == BaseDType::f32 ? DType::f32 : DType::bf16;
  const DType dense = options.dtype == BaseDType::nf4 ? options.dense_dtype : stored;
  const int64_t embedding = config.vocab_size * config.hidden_size;
  add(embedding, dense);
  if (!config.tied_embeddings) add(embedding, dense);
  add(config.hidden_size, DType::f32);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (int norm = 0; norm < 2; ++norm) add(config.hidden_size, DType::f32);
    for (int norm = 0; config.qk_norm && norm < 2; ++norm) add(config.head_dim, DType::f32);
    for (const Proj proj : all_projections) {
      const int64_t rows = projection_rows(config, proj), cols = projection_cols(config, proj);
      Nf4Arrays arrays;
      if (options.dtype == BaseDType::nf4) {
        add_bytes(nf4_place(arrays, nullptr, rows, cols, options.double_quant));
      } else {
        add(rows * cols, stored);
      }
      if (projection_has_bias(config, proj)) add(rows, DType::f32);
    }
  }
  return total;
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
