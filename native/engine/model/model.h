// A crafted model: the stored base with what a method adds or replaces, seen layer by layer. Views only.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "engine/model/base_model.h"
#include "engine/model/rope_table.h"
#include "engine/model/trainable_set.h"
#include "kernels/attention.h"

namespace caravan {

/// A vector or matrix that may train: `parameter` is null when it is frozen, else its gradient goes there.
struct Tensor {
  ConstPtr value;  // its copy where the set keeps copies
  Parameter* parameter = nullptr;
};

/// y = x W^T + b, and with LoRA + (alpha / R) B (A drop(x)).
struct Projection {
  Weight weight;
  Parameter* weight_parameter = nullptr;
  const float* bias = nullptr;  // (out) f32
  Parameter* bias_parameter = nullptr;
  Tensor lora_a;  // (R, in), null without LoRA
  Tensor lora_b;  // (out, R)
  int64_t rank = 0;
  float lora_scale = 0.0f;
  Proj which = Proj::q;

  int64_t out_features() const { return weight.rows; }
  int64_t in_features() const { return weight.cols; }
  bool has_lora() const { return rank > 0; }
};

struct Layer {
  int64_t index = 0;
  bool rotates = true;  // its queries and keys, by their positions
  Tensor input_norm;    // (C)
  Tensor post_norm;     // (C)
  Tensor q_norm;        // (head_dim) or null
  Tensor k_norm;
  std::array<Projection, num_projections> projections;
  AttentionShape attention;

  Tensor router;        // (E, C); pesc and upcycle
  Tensor adapter_down;  // (E, A, C); pesc
  Tensor adapter_up;    // (E, C, A)
  Tensor expert_gate;   // (E, F, C); upcycle
  Tensor expert_up;     // (E, F, C)
  Tensor expert_down;   // (E, C, F)

  const Projection& projection(Proj proj) const { return projections[static_cast<size_t>(proj)]; }
};

/// Holds base and set alive.
class Model {
 public:
  /// `set` may be null (the base as stored); `base` may be null where the set trains every weight (`full`, `upcycle`),
  /// and is let go then. `positions`: length of the longest sequence it will see.
  Model(const Exec& exec, const ModelConfig& config, std::shared_ptr<const BaseModel> base,
        std::shared_ptr<TrainableSet> set, int64_t positions);

  const ModelConfig& config() const { return config_; }
  const MethodOptions& method() const { return method_; }
  const BaseModel* base() const { return base_.get(); }
  TrainableSet* set() const { return set_.get(); }
  const std::vector<Layer>& layers() const { return layers_; }
  const Tensor& embedding() const { return embedding_; }    // (V, C)
  const Tensor& final_norm() const { return final_norm_; }  // (C)
  const Weight& head() const { return head_; }              // (V, C); the embedding's when tied
  Parameter* head_parameter() const { return head_parameter_; }
  /// Length of the longest sequence that it was made for.
  int64_t positions() const { return positions_; }
  /// Of every sequence but those that dynamic scaling stretches: see PassAngles.
  const RopeTable& rope() const { return rope_; }
  Device device() const { return device_; }

 private:
  void add_layer(int64_t index);
  Projection make_projection(int64_t layer, Proj proj) const;
  Tensor tensor(const std::string& name, const DeviceBuffer* stored) const;
  Tensor trained(const std::string& name) const;

  Device device_;
  ModelConfig config_;
  std::shared_ptr<const BaseModel> base_;
  std::shared_ptr<TrainableSet> set_;
  MethodOptions method_;
  int64_t positions_;
  RopeTable rope_;
  std::vector<Layer> layers_;
  Tensor embedding_;
  Tensor final_norm_;
  Weight head_;
  Parameter* head_parameter_ = nullptr;
};

}  // namespace caravan
