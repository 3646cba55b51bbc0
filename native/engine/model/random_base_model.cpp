#include <cmath>

#include "engine/model/base_model.h"

#include "kernels/random.h"

namespace caravan {

namespace {

/// Deviation of Llama's and GPT-2's initialisation; what writes into the residual stream is scaled down by the number of
/// such writes (Radford et al., GPT-2).
constexpr float deviation = 0.02f;

class Maker {
 public:
  Maker(const Exec& exec, const ModelConfig& config, uint32_t seed, const BaseOptions& options)
      : exec_(exec),
        seed_(seed),
        options_(options),
        pool_(exec.device, base_model_bytes(exec.device, config, options)) {}

  StoredWeight matrix(int64_t rows, int64_t cols, float scale, bool projection) {
    const bool quantise = projection && options_.dtype == BaseDType::nf4;
    const DType dtype = quantise ? DType::f32
                        : projection || options_.dtype != BaseDType::nf4
                            ? (options_.dtype == BaseDType::f32 ? DType::f32 : DType::bf16)
                            : options_.dense_dtype;
    const size_t bytes = static_cast<size_t>(rows * cols) * size_of(dtype);
    DeviceBuffer data = quantise ? DeviceBuffer(exec_.device, bytes) : pool_.take(bytes);
    fill_normal(exec_, data.ptr(dtype), rows * cols, scale, seed_, next_++);
    if (!quantise) return StoredWeight(std::move(data), dtype, rows, cols);
    return StoredWeight(exec_, data.ptr(dtype), rows, cols, options_.double_quant, pool_);
  }

  DeviceBuffer vector(int64_t count, float value) {
    DeviceBuffer data = pool_.take(static_cast<size_t>(count) * sizeof(float));
    fill_constant(exec_, data.ptr(DType::f32), count, value);
    return data;
  }

 private:
  const Exec& exec_;
  uint32_t seed_;
  BaseOptions options_;
  BufferPool pool_;
  uint32_t next_ = 0;
};

}  // namespace

std::shared_ptr<const BaseModel> make_random_base_model(const Exec& exec, const ModelConfig& config, uint32_t seed,
                                                        const BaseOptions& options) {
  auto model = std::make_shared<BaseModel>();
  model->config = config;
  model->options = options;
  Maker make(exec, config, seed, options);
  const float residual = deviation / std::sqrt(2.0f * static_cast<float>(config.num_layers));
  model->embedding = make.matrix(config.vocab_size, config.hidden_size, deviation, false);
  model->layers.resize(static_cast<size_t>(config.num_layers));
  for (BaseLayer& layer : model->layers) {
    layer.input_norm = make.vector(config.hidden_size, 1.0f);
    layer.post_norm = make.vector(config.hidden_size, 1.0f);
    if (config.qk_norm) {
      layer.q_norm = make.vector(config.head_dim, 1.0f);
      layer.k_norm = make.vector(config.head_dim, 1.0f);
    }
    for (const Proj proj : all_projections) {
      const bool writes_stream = proj == Proj::o || proj == Proj::down;
      const int64_t rows = projection_rows(config, proj);
      layer.projections[static_cast<size_t>(proj)] =
          make.matrix(rows, projection_cols(config, proj), writes_stream ? residual : deviation, true);
      if (projection_has_bias(config, proj)) layer.biases[static_cast<size_t>(proj)] = make.vector(rows, 0.0f);
    }
  }
  model->final_norm = make.vector(config.hidden_size, 1.0f);
  if (!config.tied_embeddings) {
    model->head = make.matrix(config.vocab_size, config.hidden_size, deviation, false);
  }
  return model;
}

}  // namespace caravan
