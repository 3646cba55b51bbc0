// AdamW over a TrainableSet: the state of each parameter, in 32 bits or in 8 bits blockwise, and the update.
#pragma once

#include <string>
#include <vector>

#include "engine/model/trainable_set.h"
#include "kernels/optimizer.h"

namespace caravan {

struct AdamWSettings {
  bool eight_bit = false;
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float eps = 1e-8f;
  float weight_decay = 0.0f;  // of matrices; vectors (norms, biases) never decay
  uint32_t seed = 0;          // stochastic rounding of bf16 parameters
};

/// One array of optimizer state, as a checkpoint keeps it. `element_bytes` 1: codes; 4: f32.
struct StateArray {
  std::string name;  // "<parameter>.m", ".v", or ".state1", ".state2", ".absmax1", ".absmax2"
  void* data = nullptr;
  int64_t count = 0;
  int64_t element_bytes = 4;
};

class AdamW {
 public:
  AdamW(const TrainableSet& set, const AdamWSettings& settings);

  /// One update of every parameter of `set` from its gradient times `gradient_scale`. `step` counts the optimizer's
  /// updates from 1.
  void update(const Exec& exec, TrainableSet& set, float lr, float gradient_scale, int64_t step);

  /// In the order of the set's parameters.
  std::vector<StateArray> arrays();
  size_t bytes() const { return memory_.bytes(); }

  /// Bytes that the state of these parameters takes.
  static size_t planned_bytes(const std::vector<Parameter>& parameters, bool eight_bit);

 private:
  struct State {
    bool eight_bit = false;
    char* first = nullptr;   // m or codes of it
    char* second = nullptr;  // v
    float* absmax1 = nullptr;
    float* absmax2 = nullptr;
  };
  AdamWSettings settings_;
  std::vector<const Parameter*> parameters_;
  std::vector<State> states_;
  DeviceBuffer memory_;
};

/// Global L2 norm of all gradients, summed in the order of the set in fp64.
double gradient_norm(const Exec& exec, TrainableSet& set);

}  // namespace caravan
