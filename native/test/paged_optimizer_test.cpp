// Optimizer state that is paged through a GPU against state that stays there: the same bits, whatever the piece and the slot.
#include <cstdio>
#include <cstring>

#include "doctest/doctest.h"
#include "engine/train/adamw.h"
#include "kernels/random.h"
#include "kernels/transfer.h"
#include "test_device.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// Its embedding takes two pieces, its first projections are small enough for 32-bit state.
ModelConfig config_of_two_pieces() {
  return parse_model_config(R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 128, "intermediate_size": 384,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 40000,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": false})",
                            "two pieces");
}

std::vector<char> bytes_of(const Exec& exec, const void* data, size_t bytes) {
  std::vector<char> result(bytes);
  download(exec, result.data(), data, bytes);
  return result;
}

/// Values and state after three updates.
std::vector<std::vector<char>> after_updates(const Exec& exec, const std::string& optimizer, DType train_dtype) {
  MethodOptions method;
  method.method = Method::full;
  TrainableSet set(exec.device, config_of_two_pieces(), method, train_dtype);
  set.allocate_gradients();
  AdamWSettings settings;
  settings.kind = parse_adamw_kind(optimizer);
  settings.weight_decay = 0.1f;
  AdamW adamw(exec, set, settings);
  for (const Parameter& parameter : set.parameters()) {
    fill_normal(exec, parameter.value, parameter.count, 0.1f, 1, parameter.index);
  }
  for (int64_t step = 1; step <= 3; ++step) {
    for (const Parameter& parameter : set.parameters()) {
      fill_normal(exec, parameter.gradient, parameter.count, 0.01f, static_cast<uint32_t>(1 + step), parameter.index);
    }
    adamw.update(exec, set, 1e-2f, 0.5f, step);
  }
  std::vector<std::vector<char>> result;
  for (const Parameter& parameter : set.parameters()) {
    result.push_back(
        bytes_of(exec, parameter.value.data, static_cast<size_t>(parameter.count) * size_of(parameter.value.dtype)));
  }
  for (const StateArray& array : adamw.arrays()) {
    result.push_back(bytes_of(exec, array.data, static_cast<size_t>(array.count * array.element_bytes)));
  }
  return result;
}

}  // namespace

TEST_CASE("paged optimizer state gives the bits of resident state, in 32 and in 8 bits") {
  if (test_device() == Device::cpu) {
    std::printf("SKIPPED paged optimizer state: set CARAVAN_TEST_DEVICE=cuda on a machine with a GPU\n");
    return;
  }
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::string name : {"adamw", "adamw8bit"}) {
      INFO(name);
      const auto resident = after_updates(test_exec(), name, dtype);
      const auto paged = after_updates(test_exec(), "paged_" + name, dtype);
      REQUIRE(paged.size() == resident.size());
      for (size_t i = 0; i < paged.size(); ++i) CHECK(paged[i] == resident[i]);
    }
  }
}
