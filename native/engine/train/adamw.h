// AdamW over a TrainableSet: the state of each parameter, in 32 bits or in 8 bits blockwise, and the update. On a GPU the
// state may be paged: it lies in host memory and passes through the device piece by piece at each update, with the same
// bits.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/model/trainable_set.h"
#include "kernels/optimizer.h"
#include "kernels/pager.h"

namespace caravan {

/// How the state is kept.
struct AdamWKind {
  bool eight_bit = false;
  bool paged = false;  // means something on a GPU alone
};
/// "adamw", "adamw8bit", "paged_adamw", "paged_adamw8bit". @throws EngineError bad_option
AdamWKind parse_adamw_kind(const std::string& optimizer);

struct AdamWSettings {
  AdamWKind kind;
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float eps = 1e-8f;
  float weight_decay = 0.0f;  // of matrices; vectors (norms, biases) never decay
  uint32_t seed = 0;          // stochastic rounding of bf16 parameters
};

/// One array of optimizer state, as a checkpoint keeps it. `element_bytes` 1: codes; 4: f32.
struct StateArray {
  std::string name;      // "<parameter>.m", ".v", or ".state1", ".state2", ".absmax1", ".absmax2"
  void* data = nullptr;  // the device's memory, or pinned host memory
  int64_t count = 0;
  int64_t element_bytes = 4;
};

/// What gradients are multiplied by before an update: a number, times one in device memory where there is one.
struct GradientScale {
  GradientScale(float number) : value(number) {}
  GradientScale(const float* memory) : device(memory) {}
  float value = 1.0f;
  const float* device = nullptr;
};

class AdamW {
 public:
  AdamW(const Exec& exec, const TrainableSet& set, const AdamWSettings& settings);

  /// One update of every parameter of `set` from its gradient times `scale`. `step` counts the optimizer's updates from 1.
  void update(const Exec& exec, TrainableSet& set, float lr, GradientScale scale, int64_t step);

  /// In the order of the set's parameters. Waits for an update under way.
  std::vector<StateArray> arrays();
  /// On the device.
  size_t bytes() const { return memory_.bytes(); }
  size_t host_bytes() const { return pinned_ ? pinned_->bytes() : 0; }

  /// Bytes that the state of these parameters takes, wherever it lies.
  static size_t planned_bytes(const std::vector<Parameter>& parameters, bool eight_bit);
  /// Bytes of the slots through which paged state passes.
  static size_t paging_bytes();

 private:
  struct State {
    bool eight_bit = false;
    char* first = nullptr;   // m or codes of it
    char* second = nullptr;  // v
    float* absmax1 = nullptr;
    float* absmax2 = nullptr;
  };
  /// Where a piece of it lies in a slot.
  State in_slot(int slot, bool eight_bit) const;
  void update_elements(const Exec& exec, const Parameter& parameter, int64_t first, int64_t count, const State& state,
                       AdamWOptions options) const;
  void update_paged(const Exec& exec, const Parameter& parameter, const State& state, const AdamWOptions& options);

  AdamWSettings settings_;
  std::vector<const Parameter*> parameters_;
  std::vector<State> states_;
  bool together_ = false;  // 32-bit state of a run of parameters lies as their values do
  DeviceBuffer memory_;    // the states, or the slots
  std::unique_ptr<PinnedBuffer> pinned_;
  std::unique_ptr<Pager> pager_;
  int next_slot_ = 0;
};

}  // namespace caravan
