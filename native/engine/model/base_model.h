// The stored weights of a model, read-only after loading and shared between sessions.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/device_buffer.h"
#include "engine/model/model_config.h"
#include "kernels/matmul.h"

namespace caravan {

/// The seven projections of a layer; the order is that of dropout's sites.
enum class Proj : uint8_t { q = 0, k, v, o, gate, up, down };
constexpr int num_projections = 7;
constexpr std::array<Proj, num_projections> all_projections = {Proj::q,    Proj::k,  Proj::v,   Proj::o,
                                                               Proj::gate, Proj::up, Proj::down};
/// "self_attn.q_proj" ... "mlp.down_proj": Hugging Face's name inside a layer.
const char* projection_name(Proj proj);
int64_t projection_rows(const ModelConfig& config, Proj proj);  // out features
int64_t projection_cols(const ModelConfig& config, Proj proj);  // in features
bool projection_has_bias(const ModelConfig& config, Proj proj);

/// How projections are kept. Embedding and head are dense beside an nf4 base; norms and biases are always f32.
enum class BaseDType : uint8_t { f32, bf16, nf4 };
const char* base_dtype_name(BaseDType dtype);
BaseDType parse_base_dtype(const std::string& name);

struct BaseOptions {
  BaseDType dtype = BaseDType::bf16;
  bool double_quant = true;
  DType dense_dtype = DType::bf16;  // embedding and head beside an nf4 base
};

/// One weight matrix, dense or NF4. Not copyable: views point into it.
class StoredWeight {
 public:
  StoredWeight() = default;
  StoredWeight(DeviceBuffer data, DType dtype, int64_t rows, int64_t cols)
      : data_(std::move(data)), dtype_(dtype), rows_(rows), cols_(cols) {}
  /// NF4 of `values` (rows, cols), which lie on the Exec's device as the result does.
  StoredWeight(const Exec& exec, ConstPtr values, int64_t rows, int64_t cols, bool double_quant, BufferPool& pool);
  /// Brings what was quantised already to the device.
  StoredWeight(const Exec& exec, const Nf4Storage& quantised, BufferPool& pool);

  /// Valid while this object stands where it is.
  Weight weight() const;
  bool quantised() const { return view_.packed != nullptr; }
  size_t bytes() const { return data_.bytes(); }

 private:
  DeviceBuffer data_;  // the values, or all that view_ points to
  DType dtype_ = DType::f32;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  Nf4View view_;
};

struct BaseLayer {
  DeviceBuffer input_norm;  // (C) f32
  DeviceBuffer post_norm;   // (C) f32
  DeviceBuffer q_norm;      // (head_dim) f32 or empty
  DeviceBuffer k_norm;
  std::array<StoredWeight, num_projections> projections;
  std::array<DeviceBuffer, num_projections> biases;  // (out) f32 or empty
};

struct BaseModel {
  ModelConfig config;
  BaseOptions options;
  StoredWeight embedding;   // (V, C)
  StoredWeight head;        // (V, C); empty when tied
  DeviceBuffer final_norm;  // (C) f32
  std::vector<BaseLayer> layers;

  size_t bytes() const;
};

/// Bytes that a BaseModel of these takes, on a GPU each of its buffers padded as BufferPool does it.
size_t base_model_bytes(Device device, const ModelConfig& config, const BaseOptions& options);

/// Loads a Hugging Face folder (config.json, safetensors single or sharded) or a GGUF file, one tensor at a time, checking
/// every shape.
/// `progress` (done, total bytes) may be empty. @throws EngineError bad_file naming file and tensor.
std::shared_ptr<const BaseModel> load_base_model(const Exec& exec, const std::string& path, const BaseOptions& options,
                                                 const std::function<void(int64_t, int64_t)>& progress = {});

/// Random weights for pre-training: normal(0, 0.02), output projections (o, down) normal(0, 0.02 / sqrt(2 L)), norms 1,
/// biases 0. A pure function of config and seed.
std::shared_ptr<const BaseModel> make_random_base_model(const Exec& exec, const ModelConfig& config, uint32_t seed,
                                                        const BaseOptions& options);

}  // namespace caravan
