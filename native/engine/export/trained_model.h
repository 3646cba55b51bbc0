// A trained model taken apart: every value that an export may write, by the name that Hugging Face (or the checkpoint)
// gives it, with LoRA merged where a weight has one.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/export/export_options.h"
#include "engine/model/trainable_set.h"

namespace caravan {

/// How the values of a tensor come about, before its type.
enum class TensorRule : uint8_t {
  copied,  // as the base or the checkpoint has it
  merged,  // W + scale * B A
};

/// Where the values of a tensor in a file come from.
struct TensorOrigin {
  std::string name;        // a dense tensor's Hugging Face name, or a trained parameter's
  bool parameter = false;  // of the checkpoint, as it is
  int64_t first = 0;       // element of the tensor; above 0 where `can_slice` alone
};

class TrainedModel {
 public:
  /// Loads base and checkpoint. @throws EngineError
  static TrainedModel open(const Exec& exec, const ExportOptions& options, const ExportWatch& watch);

  const ModelConfig& config() const { return config_; }
  const MethodOptions& method() const { return method_; }
  DType train_dtype() const { return set_ == nullptr ? DType::f32 : set_->dtype(); }
  const std::shared_ptr<const BaseModel>& base() const { return base_; }
  const std::shared_ptr<TrainableSet>& set() const { return set_; }

  TensorRule rule(const TensorOrigin& origin) const;
  /// Whether elements can be read without those before them: neither merged nor in blocks.
  bool can_slice(const TensorOrigin& origin) const;
  /// `count` values as f32.
  void read(const TensorOrigin& origin, int64_t count, float* out) const;
  /// The same by another way: a merge is summed element by element in fp64, from the factors alone. `scale` is the largest
  /// |W| + |scale B A| of each element's sum, which bounds its rounding.
  void expect(const TensorOrigin& origin, int64_t count, double* out, double* scale) const;

 private:
  struct Dense {
    const StoredWeight* weight = nullptr;
    const DeviceBuffer* vector = nullptr;
  };
  void list_base();
  const Parameter& parameter(const std::string& name) const;
  bool has_lora(const std::string& name) const;
  void read_unmerged(const std::string& name, int64_t first, int64_t count, float* out) const;

  Exec exec_;
  ModelConfig config_;
  MethodOptions method_;
  std::shared_ptr<const BaseModel> base_;  // null where the checkpoint holds every weight
  std::shared_ptr<TrainableSet> set_;      // null where nothing was trained on the base
  std::unordered_map<std::string, Dense> dense_;
};

/// A base as its files have it: bf16 where all of it is, else f32.
BaseOptions stored_base_options(const std::string& model_dir);

}  // namespace caravan
