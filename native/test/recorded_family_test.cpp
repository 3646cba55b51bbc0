// What sets the families and the scalings of the rotary embedding apart, against transformers: one tiny model each,
// logits and every gradient; and the rotary tables alone at the sizes of real models.
#include <cmath>

#include <nlohmann/json.hpp>

#include "doctest/doctest.h"
#include "engine/model/rope_table.h"
#include "recorded_case.h"

using namespace caravan;
using namespace caravan::test;

TEST_CASE("sliding windows, q/k norms, biases and rotary scalings: logits and gradients are transformers'") {
  int count = 0;
  for (const std::string& name : recorded_case_names()) {
    if (!name.starts_with("family-")) continue;
    const RecordedCase recorded(name);
    check_recorded(recorded, {});
    RunOptions recomputed;
    recomputed.recompute = true;
    check_recorded(recorded, recomputed);
    ++count;
  }
  CHECK(count == 13);
}

TEST_CASE("the recorded families differ in what they are recorded for") {
  const auto config = [](const char* name) { return RecordedCase(name).config; };
  CHECK(config("family-mistral-window").windows == std::vector<int64_t>{3, 3});
  CHECK(config("family-mistral").windows == std::vector<int64_t>{0, 0});
  CHECK(config("family-qwen2-window").windows == std::vector<int64_t>{0, 3});
  CHECK(config("family-qwen2-window").qkv_bias);
  CHECK(config("family-qwen3").qk_norm);
  CHECK(config("family-qwen3-bias").o_bias);
  CHECK(config("family-smollm3").no_rope == std::vector<uint8_t>{0, 1});
  CHECK(config("family-smollm3-lora").no_rope == std::vector<uint8_t>{1, 0});
  CHECK(config("family-llama-bias").o_bias);
  CHECK(config("family-llama-bias").mlp_bias);
  CHECK(config("family-linear").rope.kind == RopeKind::linear);
  CHECK(config("family-dynamic").rope.kind == RopeKind::dynamic);
  CHECK(config("family-llama3").rope.kind == RopeKind::llama3);
  CHECK(config("family-yarn").rope.kind == RopeKind::yarn);
}

TEST_CASE("rotary tables of every scaling are transformers' at the sizes of real models") {
  const SafetensorsFile file = SafetensorsFile::open(recorded_path("rope"));
  const nlohmann::json kinds = nlohmann::json::parse(file.metadata().at("case")).at("kinds");
  CHECK(kinds.size() == 11);
  for (const auto& [name, kind] : kinds.items()) {
    INFO(name);
    const ModelConfig config = parse_model_config(kind.at("config").dump(), name);
    const int64_t length = kind.at("length");
    double attention_factor = 0.0;
    const std::vector<double> frequencies = rope_frequencies(config, length, &attention_factor);
    const auto expected = file.as<float>(file.get(name + ".frequencies"));
    REQUIRE(frequencies.size() == expected.size());
    // The last bits of a power and a division in fp32.
    for (size_t i = 0; i < expected.size(); ++i) {
      REQUIRE(std::fabs(frequencies[i] - expected[i]) <= 3e-7 * std::fabs(expected[i]));
    }
    const RopeTable table = make_rope_table(Exec(), config, length);
    const auto positions = file.as<int32_t>(file.get(name + ".positions"));
    const auto cos = file.as<float>(file.get(name + ".cos")), sin = file.as<float>(file.get(name + ".sin"));
    REQUIRE(cos.size() == positions.size() * expected.size());
    for (size_t p = 0; p < positions.size(); ++p) {
      for (size_t i = 0; i < expected.size(); ++i) {
        const size_t here = static_cast<size_t>(positions[p]) * expected.size() + i, there = p * expected.size() + i;
        // A frequency's last bits times the position.
        const double angle_error = 3e-7 * expected[i] * positions[p] + 2e-7;
        REQUIRE(std::fabs(table.cos[here] - cos[there]) <= angle_error * attention_factor);
        REQUIRE(std::fabs(table.sin[here] - sin[there]) <= angle_error * attention_factor);
      }
    }
  }
}
