// The parameters that a method trains, as one flat list in a fixed order: the order of checkpoints, of the gradient
// norm's sum and of the optimizer's random numbers.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/model/base_model.h"
#include "engine/model/method.h"

namespace caravan {

enum class ParameterGroup : uint8_t { lora, adapter, router, base, expert };

struct Parameter {
  std::string name;  // Hugging Face's name for what the base has; ".lora_a", ".adapter_down", ".router" for what is new
  std::vector<int64_t> shape;
  int64_t count = 0;
  uint32_t index = 0;  // in the set: the counter of stochastic rounding
  ParameterGroup group = ParameterGroup::lora;
  Ptr value;     // trainDtype for matrices; vectors (norms, biases) are f32 always
  Ptr gradient;  // value's dtype; null until gradients are allocated
  Ptr copy;      // bf16, what products read of an f32 matrix; null where they read the value
};

/// Names, shapes and order of what `method` trains on a model of `config`, without memory.
std::vector<Parameter> list_parameters(const ModelConfig& config, const MethodOptions& method);

/// Parameters that follow each other and are alike for an optimizer: of one type, matrices or vectors. What lies between
/// them in memory is zero in values, gradients and 32-bit state alike, so that one operation may take them together.
struct ParameterRun {
  size_t first = 0;
  size_t count = 0;      // of parameters
  int64_t elements = 0;  // from the first one's beginning to the last one's end
};

class TrainableSet {
 public:
  TrainableSet(Device device, const ModelConfig& config, const MethodOptions& method, DType train_dtype)
      : TrainableSet(device, config, method, train_dtype, train_dtype) {}
  /// `router_dtype`: of the routers alone.
  TrainableSet(Device device, const ModelConfig& config, const MethodOptions& method, DType train_dtype,
               DType router_dtype);

  /// Initial values (design: A, Down and routers U(+-1/sqrt(fan_in)), B and Up 0; `full` and `upcycle` copy the base,
  /// every expert the FFN). A pure function of the arguments.
  void initialise(const Exec& exec, const BaseModel& base, uint32_t seed);
  void allocate_gradients();
  /// bf16 copies of what products would round anew at every use: for a GPU that computes in bf16 with values in f32. Before
  /// a Model is made of this set. Routers have none: they work in f32.
  void allocate_copies();
  /// After the values have changed.
  void refresh_copies(const Exec& exec);
  size_t copy_bytes() const { return copies_.bytes(); }
  void zero_gradients(const Exec& exec);

  const MethodOptions& method() const { return method_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  std::vector<Parameter>& parameters() { return parameters_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  /// All parameters, in their order.
  const std::vector<ParameterRun>& runs() const { return runs_; }
  /// Null when there is none of that name.
  Parameter* find(const std::string& name);
  /// Number of trainable scalars.
  int64_t count() const;
  size_t value_bytes() const { return values_.bytes(); }

 private:
  void copy_base(const Exec& exec, const BaseModel& base);
  Device device_;
  ModelConfig config_;
  MethodOptions method_;
  DType dtype_;
  std::vector<Parameter> parameters_;
  std::vector<ParameterRun> runs_;
  std::unordered_map<std::string, size_t> by_name_;
  DeviceBuffer values_;
  DeviceBuffer gradients_;
  DeviceBuffer copies_;
};

}  // namespace caravan
