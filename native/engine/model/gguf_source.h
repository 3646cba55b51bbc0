// A GGUF file as a model: its tensors under Hugging Face's names, dequantised, and their rows in Hugging Face's order.
#pragma once

#include <map>

#include "engine/io/gguf.h"
#include "engine/model/model_source.h"

namespace caravan {

class GgufSource : public ModelSource {
 public:
  /// @throws EngineError bad_file, unsupported_architecture (also where the file holds tensors that the architecture
  ///   does not have: leaving them out would make another model of it)
  explicit GgufSource(const std::string& path);

  std::optional<Stored> find(const std::string& name) const override;
  void read(const std::string& name, Ptr out) const override;
  const ModelConfig& config() const override { return config_; }
  const char* config_place() const override { return "the metadata"; }
  std::vector<std::string> stored_types() const override;
  uint64_t tensor_bytes() const override;

 private:
  /// How many heads a tensor's rows belong to which lie in ggml's rotary order; 0: they lie as everywhere else.
  int64_t interleaved_heads(const std::string& name) const;

  GgufFile file_;
  ModelConfig config_;
  std::map<std::string, const GgufTensor*, std::less<>> by_name_;  // Hugging Face's name
};

}  // namespace caravan
