// What record_cases.py wrote: a tiny model, a method, its batches, and what PyTorch, transformers and peft made of
// them.
#pragma once

#include <string>
#include <vector>

#include "engine/io/safetensors.h"
#include "engine/model/decoder.h"
#include "engine/train/adamw.h"
#include "engine/train/gradient_clip.h"
#include "tiny_model.h"

namespace caravan::test {

/// All recorded cases, by name, but "rope" (recorded_rope_test.cpp).
std::vector<std::string> recorded_case_names();
/// Path of a recorded file. The folder is native/test/recorded.
std::string recorded_path(const std::string& name);

struct RecordedCase {
  explicit RecordedCase(const std::string& case_name);

  std::string name;
  std::string config_json;  // as transformers writes it
  ModelConfig config;
  MethodOptions method;
  BaseDType base = BaseDType::f32;  // how the frozen projections are stored
  uint32_t seed = 0;
  float lr = 0.0f;
  float weight_decay = 0.0f;
  double max_grad_norm = 0.0;
  std::vector<std::vector<Conversation>> batches;  // one per step

  /// The values PyTorch started from.
  std::vector<float> initial(const std::string& tensor, const std::vector<int64_t>& shape) const;
  std::vector<float> floats(const std::string& tensor) const;
  std::vector<int32_t> integers(const std::string& tensor) const;
  bool has(const std::string& tensor) const { return file_.find(tensor) != nullptr; }
  /// "gradients" or "after", cut into parameters (they lie there by name) in the order of `set`.
  std::vector<std::vector<float>> by_parameter(const std::string& tensor, const TrainableSet& set) const;
  /// Of a parameter in the order of "gradients".
  size_t place_of(const std::string& parameter) const;

 private:
  struct Rule {
    std::string ending;
    float center = 0.0f;
    double spread = 0.0;
    bool by_fan_in = false;
  };
  SafetensorsFile file_;
  std::vector<Rule> rules_;
  std::vector<std::string> trainable_;  // by name: the order of "gradients"
};

/// config.json and model.safetensors of a case's dense base.
void write_recorded_base(const RecordedCase& recorded, const std::string& dir);
/// Every parameter of `set` to where PyTorch started.
void set_recorded_values(const RecordedCase& recorded, const TrainableSet& set);

/// The engine's model of a case: its base loaded from a folder of config.json and safetensors (none for upcycle), its
/// parameters set to where PyTorch started.
TinySession make_recorded_session(const Exec& exec, const RecordedCase& recorded, BaseDType base);

/// The engine's way through a case.
struct EngineRun {
  std::vector<float> logits;  // of the first batch, before the first step and without dropout
  std::vector<float> losses;  // of the first step's targets
  std::vector<std::vector<float>> gradients;
  std::vector<int64_t> tokens_per_expert;  // (micro-batches, L, E) of the first step
  std::vector<double> loss, balance;       // of each step
  std::vector<std::vector<float>> before, after;
};
struct RunOptions {
  DType activation = DType::f32;  // bf16: the base is stored in bf16 too
  bool recompute = false;
  int threads = 1;
  int64_t padding = 3;
  int64_t steps = 1 << 30;
};
EngineRun run_recorded(const RecordedCase& recorded, const RunOptions& options);

/// |a - b| <= tolerance * max |b| for every element of every parameter.
void check_parameters(const RecordedCase& recorded, const std::vector<std::vector<float>>& actual,
                      const std::vector<std::vector<float>>& expected, double tolerance, const char* what);
void check_values(const std::vector<float>& actual, const std::vector<float>& expected, double tolerance,
                  const std::string& what);

void check_experts(const RecordedCase& recorded, const EngineRun& run);

/// Losses and alpha * balance loss of all steps.
void check_losses(const RecordedCase& recorded, const std::vector<double>& loss, const std::vector<double>& balance);
/// What ten steps changed.
void check_updates(const RecordedCase& recorded, const std::vector<std::vector<float>>& before,
                   const std::vector<std::vector<float>>& after);

/// Runs a case and compares all that is recorded of it, element by element, within the tolerances of fp32.
void check_recorded(const RecordedCase& recorded, const RunOptions& options);

}  // namespace caravan::test
