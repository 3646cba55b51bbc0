#include "engine/model/base_model.h"
#include "engine/model/model_source.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + ")";
}

/// Reads the tensors of one stored model into what the base keeps, one at a time.
class Loader {
 public:
  Loader(const Exec& exec, const std::string& path, const BaseOptions& options,
         const std::function<void(int64_t, int64_t)>& progress)
      : exec_(exec), path_(path), options_(options), progress_(progress), source_(ModelSource::open(path)) {
    total_ = static_cast<int64_t>(source_->tensor_bytes());
  }

  const ModelConfig& config() const { return source_->config(); }
  bool has(const std::string& name) const { return source_->find(name).has_value(); }

  /// A projection: in the base's dtype.
  StoredWeight projection(const std::string& name, int64_t rows, int64_t cols) {
    if (options_.dtype != BaseDType::nf4) return dense(name, rows, cols, dense_dtype());
    // What is stored in NF4 already is kept code by code: quantising it anew would not give the same constants.
    if (std::optional<Nf4Storage> stored = source_->read_nf4(name);
        stored && stored->rows == rows && stored->cols == cols) {
      return StoredWeight(exec_, *stored);
    }
    const DeviceBuffer values = move_to_device(exec_, read(name, {rows, cols}, DType::f32));
    return StoredWeight(exec_, values.ptr(DType::f32), rows, cols, options_.double_quant);
  }

  /// Embedding and head: never quantised.
  StoredWeight dense(const std::string& name, int64_t rows, int64_t cols) {
    return dense(name, rows, cols, options_.dtype == BaseDType::nf4 ? options_.dense_dtype : dense_dtype());
  }

  DeviceBuffer vector(const std::string& name, int64_t count) {
    return move_to_device(exec_, read(name, {count}, DType::f32));
  }

 private:
  DType dense_dtype() const { return options_.dtype == BaseDType::f32 ? DType::f32 : DType::bf16; }

  StoredWeight dense(const std::string& name, int64_t rows, int64_t cols, DType dtype) {
    return StoredWeight(move_to_device(exec_, read(name, {rows, cols}, dtype)), dtype, rows, cols);
  }

  /// In host memory.
  DeviceBuffer read(const std::string& name, const std::vector<int64_t>& shape, DType dtype) {
    const std::optional<ModelSource::Stored> stored = source_->find(name);
    const std::string config_place = source_->config_place();
    if (!stored) {
      throw EngineError("bad_file", path_ + ": the weights lack tensor " + name + ", which " + config_place +
                                        " asks for; it and the weights must be of the same model");
    }
    if (stored->shape != shape) {
      throw EngineError("bad_file", stored->place + " has shape " + shape_text(stored->shape) + ", but " +
                                        config_place + " asks for " + shape_text(shape));
    }
    int64_t elements = 1;
    for (const int64_t extent : shape) elements *= extent;
    DeviceBuffer buffer = DeviceBuffer::of(Device::cpu, dtype, elements);
    source_->read(name, buffer.ptr(dtype));
    done_ += static_cast<int64_t>(stored->bytes);
    if (progress_) progress_(done_, total_);
    return buffer;
  }

  const Exec& exec_;
  const std::string& path_;
  const BaseOptions& options_;
  const std::function<void(int64_t, int64_t)>& progress_;
  std::unique_ptr<ModelSource> source_;
  int64_t done_ = 0;
  int64_t total_ = 0;
};

/// Early uploads of Yi call the two norms ln1 and ln2.
std::string norm_name(const Loader& loader, const std::string& prefix, const char* name, const char* yi_name) {
  const std::string usual = prefix + name + ".weight";
  const std::string yi = prefix + yi_name + ".weight";
  return !loader.has(usual) && loader.has(yi) ? yi : usual;
}

BaseLayer load_layer(Loader& loader, const ModelConfig& config, int64_t index) {
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  BaseLayer layer;
  layer.input_norm = loader.vector(norm_name(loader, prefix, "input_layernorm", "ln1"), config.hidden_size);
  layer.post_norm = loader.vector(norm_name(loader, prefix, "post_attention_layernorm", "ln2"), config.hidden_size);
  if (config.qk_norm) {
    layer.q_norm = loader.vector(prefix + "self_attn.q_norm.weight", config.head_dim);
    layer.k_norm = loader.vector(prefix + "self_attn.k_norm.weight", config.head_dim);
  }
  for (const Proj proj : all_projections) {
    const std::string name = prefix + projection_name(proj);
    const int64_t rows = projection_rows(config, proj);
    layer.projections[static_cast<size_t>(proj)] =
        loader.projection(name + ".weight", rows, projection_cols(config, proj));
    if (projection_has_bias(config, proj)) {
      layer.biases[static_cast<size_t>(proj)] = loader.vector(name + ".bias", rows);
    }
  }
  return layer;
}

}  // namespace

std::shared_ptr<const BaseModel> load_base_model(const Exec& exec, const std::string& path, const BaseOptions& options,
                                                 const std::function<void(int64_t, int64_t)>& progress) {
  auto model = std::make_shared<BaseModel>();
  Loader loader(exec, path, options, progress);
  model->config = loader.config();
  model->options = options;
  const ModelConfig& config = model->config;
  model->embedding = loader.dense("model.embed_tokens.weight", config.vocab_size, config.hidden_size);
  model->layers.reserve(static_cast<size_t>(config.num_layers));
  for (int64_t i = 0; i < config.num_layers; ++i) model->layers.push_back(load_layer(loader, config, i));
  model->final_norm = loader.vector("model.norm.weight", config.hidden_size);
  if (!config.tied_embeddings) model->head = loader.dense("lm_head.weight", config.vocab_size, config.hidden_size);
  return model;
}

}  // namespace caravan
