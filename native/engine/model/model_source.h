// A stored model, whatever its files: its configuration, and its tensors under the names that Hugging Face gives them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "kernels/dtype.h"
#include "kernels/nf4.h"

namespace caravan {

class ModelSource {
 public:
  /// A Hugging Face folder (config.json, safetensors), or a GGUF file.
  /// @throws EngineError bad_file, unsupported_architecture
  static std::unique_ptr<ModelSource> open(const std::string& path);
  virtual ~ModelSource() = default;

  struct Stored {
    std::vector<int64_t> shape;
    uint64_t bytes = 0;
    std::string place;  // file and the tensor's own name there, for messages
  };
  virtual std::optional<Stored> find(const std::string& name) const = 0;
  /// All elements of a tensor that is there, as f32 or bf16 (rounded to nearest even).
  virtual void read(const std::string& name, Ptr out) const = 0;

  /// Where the elements of a tensor that is there lie in memory as f32 or bf16; null for one that must be read.
  virtual ConstPtr view(const std::string& /*name*/) const { return {}; }

  /// A matrix that is stored in NF4, as it is; nothing for any other.
  virtual std::optional<Nf4Storage> read_nf4(const std::string& /*name*/) const { return std::nullopt; }

  virtual const ModelConfig& config() const = 0;
  /// Where the configuration stands, for messages: "config.json" or "the metadata".
  virtual const char* config_place() const = 0;
  /// The types in which tensors are stored, each once, sorted.
  virtual std::vector<std::string> stored_types() const = 0;
  /// Bytes of all tensors.
  virtual uint64_t tensor_bytes() const = 0;
};

}  // namespace caravan
