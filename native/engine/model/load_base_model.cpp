#include <algorithm>

#include "engine/model/base_model.h"
#include "engine/model/model_source.h"
#include "engine/platform/error.h"
#include "engine/platform/memory.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + ")";
}

/// Reads the tensors of one stored model into what the base keeps, one at a time. What lies in its files as it is needed is
/// taken from there; on a GPU it goes through pinned memory in pieces, so that the host holds no tensor.
class Loader {
 public:
  Loader(const Exec& exec, const std::string& path, const BaseOptions& options,
         const std::function<void(int64_t, int64_t)>& progress)
      : exec_(exec),
        path_(path),
        options_(options),
        progress_(progress),
        source_(ModelSource::open(path)),
        pool_(exec.device, base_model_bytes(exec.device, source_->config(), options)) {
    total_ = static_cast<int64_t>(source_->tensor_bytes());
  }

  const ModelConfig& config() const { return source_->config(); }
  bool has(const std::string& name) const { return source_->find(name).has_value(); }

  /// A projection: in the base's dtype.
  StoredWeight projection(const std::string& name, int64_t rows, int64_t cols) {
    if (options_.dtype != BaseDType::nf4) return dense(name, rows, cols, dense_dtype());
    const int64_t bytes = check(name, {rows, cols});
    StoredWeight weight = quantised(name, rows, cols);
    finish(name, bytes);
    return weight;
  }

  /// Embedding and head: never quantised.
  StoredWeight dense(const std::string& name, int64_t rows, int64_t cols) {
    return dense(name, rows, cols, options_.dtype == BaseDType::nf4 ? options_.dense_dtype : dense_dtype());
  }

  DeviceBuffer vector(const std::string& name, int64_t size) { return read(name, {size}, DType::f32); }

 private:
  DType dense_dtype() const { return options_.dtype == BaseDType::f32 ? DType::f32 : DType::bf16; }

  StoredWeight dense(const std::string& name, int64_t rows, int64_t cols, DType dtype) {
    return StoredWeight(read(name, {rows, cols}, dtype), dtype, rows, cols);
  }

  StoredWeight quantised(const std::string& name, int64_t rows, int64_t cols) {
    // What is stored in NF4 already is kept code by code: quantising it anew would not give the same constants.
    if (std::optional<Nf4Storage> stored = source_->read_nf4(name);
        stored && stored->rows == rows && stored->cols == cols) {
      return StoredWeight(exec_, *stored, pool_);
    }
    DeviceBuffer copy;
    ConstPtr values = view(name, rows * cols);
    if (!values) {
      copy = DeviceBuffer::of(Device::cpu, DType::f32, rows * cols);
      source_->read(name, copy.ptr(DType::f32));
      values = copy.ptr(DType::f32);
    }
    if (exec_.device == Device::cuda) values = stage(values, rows * cols);
    return StoredWeight(exec_, values, rows, cols, options_.double_quant, pool_);
  }

  /// The tensor where it lies in its file, brought into memory; null where it must be read.
  ConstPtr view(const std::string& name, int64_t elements) const {
    constexpr int64_t grain = 2 << 20;
    const ConstPtr values = source_->view(name);
    if (!values) return values;
    const char* begin = static_cast<const char*>(values.data);
    parallel_for(
        exec_, elements * static_cast<int64_t>(size_of(values.dtype)), grain,
        [&](int64_t first, int64_t last) { read_mapped_pages(begin + first, static_cast<size_t>(last - first)); });
    return values;
  }

  /// On the device, until the next.
  ConstPtr stage(ConstPtr values, int64_t elements) {
    const size_t bytes = static_cast<size_t>(elements) * size_of(values.dtype);
    if (staged_.bytes() < bytes)
      staged_ = DeviceBuffer(exec_.device, std::max(bytes, largest_projection(values.dtype)));
    upload(exec_, staged_.data(), values.data, bytes);
    return staged_.ptr(values.dtype);
  }

  size_t largest_projection(DType dtype) const {
    int64_t largest = 0;
    for (const Proj proj : all_projections) {
      largest = std::max(largest, projection_rows(config(), proj) * projection_cols(config(), proj));
    }
    return static_cast<size_t>(largest) * size_of(dtype);
  }

  /// In the device's memory.
  DeviceBuffer read(const std::string& name, const std::vector<int64_t>& shape, DType dtype) {
    const int64_t bytes = check(name, shape);
    int64_t elements = 1;
    for (const int64_t extent : shape) elements *= extent;
    const ConstPtr values = view(name, elements);
    DeviceBuffer result;
    if (values && values.dtype == dtype) {
      result = pool_.take(static_cast<size_t>(elements) * size_of(dtype));
      upload(exec_, result.data(), values.data, result.bytes());
    } else {
      DeviceBuffer host = DeviceBuffer::of(Device::cpu, dtype, elements);
      source_->read(name, host.ptr(dtype));
      result = move_to_device(exec_, std::move(host), pool_);
    }
    finish(name, bytes);
    return result;
  }

  /// Bytes of a tensor in its file. @throws EngineError bad_file where it is missing or has another shape
  int64_t check(const std::string& name, const std::vector<int64_t>& shape) const {
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
    return static_cast<int64_t>(stored->bytes);
  }

  /// A tensor of `bytes` is read; its pages need not stay in memory.
  void finish(const std::string& name, int64_t bytes) {
    if (const ConstPtr values = source_->view(name)) drop_mapped_pages(values.data, static_cast<size_t>(bytes));
    done_ += bytes;
    if (progress_) progress_(done_, total_);
  }

  const Exec& exec_;
  const std::string& path_;
  const BaseOptions& options_;
  const std::function<void(int64_t, int64_t)>& progress_;
  std::unique_ptr<ModelSource> source_;
  BufferPool pool_;
  DeviceBuffer staged_;
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
