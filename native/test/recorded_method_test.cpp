// The engine against PyTorch, transformers and peft on the same weights, every element: logits, losses, balance loss,
// every trainable gradient, and ten optimizer steps, of each method on a tiny Llama and a tiny Qwen2. The cases are
// recorded by record_cases.py; each keeps its top-k choices apart by more than rounding moves them.
#include <algorithm>
#include <cmath>

#include "doctest/doctest.h"
#include "recorded_case.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// fp32 against fp32: what another order of sums moves.
constexpr double logit_tolerance = 1e-5;     // of the largest logit
constexpr double gradient_tolerance = 1e-4;  // of the tensor's largest gradient
constexpr double loss_tolerance = 1e-5;      // of the loss
constexpr double update_tolerance = 1e-3;    // of the tensor's largest update over the ten steps

void check_losses(const RecordedCase& recorded, const EngineRun& run, double tolerance) {
  const std::vector<float> loss = recorded.floats("loss"), balance = recorded.floats("balance");
  const size_t steps = run.loss.size();
  REQUIRE(steps <= loss.size());
  for (size_t step = 0; step < steps; ++step) {
    INFO("step " << step + 1);
    CHECK(std::fabs(run.loss[step] - loss[step]) <= tolerance * std::fabs(loss[step]));
    CHECK(std::fabs(run.balance[step] - balance[step]) <= tolerance * std::fabs(balance[step]));
  }
  check_values(run.losses, recorded.floats("losses"), tolerance, recorded.name + " losses");
}

void check_experts(const RecordedCase& recorded, const EngineRun& run) {
  if (!recorded.method.has_experts()) return;
  const std::vector<int32_t> expected = recorded.integers("tokens_per_expert");
  CHECK(run.tokens_per_expert == std::vector<int64_t>(expected.begin(), expected.end()));
}

void check_case(const RecordedCase& recorded, const RunOptions& options) {
  INFO(recorded.name);
  const EngineRun run = run_recorded(recorded, options);
  const TrainableSet set(Device::cpu, recorded.config, recorded.method, DType::f32);
  check_values(run.logits, recorded.floats("logits"), logit_tolerance, recorded.name + " logits");
  check_losses(recorded, run, loss_tolerance);
  check_experts(recorded, run);
  check_parameters(recorded, run.gradients, recorded.by_parameter("gradients", set), gradient_tolerance, "gradient of");
  if (!recorded.has("after")) return;

  REQUIRE(run.loss.size() == 10);
  // What moved, so that a tensor that starts large is not let off.
  std::vector<std::vector<float>> moved = run.after, expected = recorded.by_parameter("after", set);
  for (size_t p = 0; p < moved.size(); ++p) {
    for (size_t i = 0; i < moved[p].size(); ++i) {
      moved[p][i] -= run.before[p][i];
      expected[p][i] -= run.before[p][i];
    }
  }
  check_parameters(recorded, moved, expected, update_tolerance, "update of");
}

bool is_family_case(const std::string& name) { return name.starts_with("family-"); }

std::vector<std::string> method_cases() {
  std::vector<std::string> names = recorded_case_names();
  std::erase_if(names, is_family_case);
  return names;
}

}  // namespace

TEST_CASE("every method on Llama and Qwen2: logits, losses, gradients and ten steps are PyTorch's") {
  const std::vector<std::string> names = method_cases();
  CHECK(names.size() == 24);
  for (const std::string& name : names) check_case(RecordedCase(name), {});
}

TEST_CASE("so they are with recomputation, on several threads, and with other padding") {
  for (const char* name :
       {"llama-pesc-dropout", "qwen2-pesc-8-2", "llama-lora-dropout", "qwen2-full", "llama-upcycle"}) {
    RunOptions options;
    options.recompute = true;
    options.threads = 3;
    options.padding = 0;
    check_case(RecordedCase(name), options);
  }
}
