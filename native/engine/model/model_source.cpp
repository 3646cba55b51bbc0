#include "engine/model/model_source.h"

#include <set>

#include "engine/io/bitsandbytes.h"
#include "engine/io/gguf.h"
#include "engine/io/safetensors.h"
#include "engine/model/gguf_source.h"

namespace caravan {

namespace {

class FolderSource : public ModelSource {
 public:
  explicit FolderSource(const std::string& dir) : config_(read_model_config(dir)), tensors_(ModelTensors::open(dir)) {}

  std::optional<Stored> find(const std::string& name) const override {
    const ModelTensors::Entry entry = tensors_.find(name);
    if (entry.tensor == nullptr) return std::nullopt;
    if (const auto shape = bitsandbytes_shape(tensors_, name)) {
      return Stored{*shape, entry.tensor->size, entry.file->path() + ": tensor " + name};
    }
    return Stored{entry.tensor->shape, entry.tensor->size, entry.file->path() + ": tensor " + name};
  }
  void read(const std::string& name, Ptr out) const override {
    if (const auto quantised = read_bitsandbytes(tensors_, name)) return quantised->read(out);
    const ModelTensors::Entry entry = tensors_.find(name);
    read_tensor(*entry.file, *entry.tensor, out);
  }
  ConstPtr view(const std::string& name) const override {
    if (bitsandbytes_shape(tensors_, name)) return {};
    const ModelTensors::Entry entry = tensors_.find(name);
    const StoredType type = entry.tensor->type;
    if (type != StoredType::F32 && type != StoredType::BF16) return {};
    const std::byte* bytes = entry.file->bytes(*entry.tensor).data();
    if (reinterpret_cast<uintptr_t>(bytes) % stored_type_size(type) != 0) return {};
    return {bytes, type == StoredType::F32 ? DType::f32 : DType::bf16};
  }
  std::optional<Nf4Storage> read_nf4(const std::string& name) const override {
    const auto quantised = read_bitsandbytes(tensors_, name);
    return quantised ? quantised->storage() : std::nullopt;
  }
  const ModelConfig& config() const override { return config_; }
  const char* config_place() const override { return "config.json"; }
  std::vector<std::string> stored_types() const override {
    std::set<std::string> types;
    for (const auto& [name, entry] : tensors_.entries()) {
      if (is_bitsandbytes_state(name)) continue;
      const bool quantised = bitsandbytes_shape(tensors_, name).has_value();
      types.insert(quantised ? "NF4" : stored_type_name(entry.tensor->type));
    }
    return {types.begin(), types.end()};
  }
  uint64_t tensor_bytes() const override { return tensors_.file_bytes(); }

 private:
  ModelConfig config_;
  ModelTensors tensors_;
};

}  // namespace

std::unique_ptr<ModelSource> ModelSource::open(const std::string& path) {
  if (is_gguf_file(path)) return std::make_unique<GgufSource>(path);
  return std::make_unique<FolderSource>(path);
}

}  // namespace caravan
