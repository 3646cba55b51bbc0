// SmolLM2-135M against values recorded from transformers: log-probabilities and greedy answers in fp32.
//
// Every day: 16 of the 80 recorded scores and the first 32 tokens of each answer; all of them with
// CARAVAN_TEST_LONG=1.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "doctest/doctest.h"
#include "engine/infer/inference_model.h"
#include "kernels/exec.h"
#include "test_data.h"

using namespace caravan;

namespace {

const char* const recorded_values = "SmolLM2's scores and answers";

bool is_long() { return std::getenv("CARAVAN_TEST_LONG") != nullptr; }

std::vector<nlohmann::json> lines_of(const std::string& path) {
  std::ifstream file(path);
  REQUIRE(file);
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

/// Opened once: loading takes as long as a test.
InferenceModel* smollm2(const std::string& folder, BaseDType base) {
  static std::shared_ptr<InferenceModel> models[3];
  std::shared_ptr<InferenceModel>& model = models[static_cast<size_t>(base)];
  if (!model) {
    OpenModelOptions options;
    options.model_dir = folder;
    options.base_dtype = base;
    options.threads = 2;
    model = InferenceModel::open(options);
  }
  return model.get();
}

}  // namespace

TEST_CASE("log-probabilities agree with transformers to 1e-4 per token") {
  const auto folder = test::smollm2_folder(recorded_values);
  if (!folder) return;
  const std::vector<nlohmann::json> lines = lines_of(*test::test_data("models/smollm2-scores.jsonl", recorded_values));
  REQUIRE(lines.size() == 80);
  std::vector<nlohmann::json> chosen;
  for (size_t i = 0; i < lines.size(); i += is_long() ? 1 : 5) chosen.push_back(lines[i]);
  std::vector<std::vector<int32_t>> rows;
  std::vector<int64_t> first;
  for (const nlohmann::json& line : chosen) {
    std::vector<int32_t> row = line.at("context_ids");
    first.push_back(static_cast<int64_t>(row.size()));
    const std::vector<int32_t> continuation = line.at("continuation_ids");
    row.insert(row.end(), continuation.begin(), continuation.end());
    rows.push_back(std::move(row));
  }
  const std::vector<ScoreResult> results = smollm2(*folder, BaseDType::f32)->score(rows, first);
  double worst = 0.0;
  size_t tokens = 0;
  for (size_t i = 0; i < chosen.size(); ++i) {
    const std::vector<double> expected = chosen[i].at("token_logprobs");
    REQUIRE(results[i].token_logprobs.size() == expected.size());
    for (size_t t = 0; t < expected.size(); ++t) {
      worst = std::max(worst, std::fabs(results[i].token_logprobs[t] - expected[t]));
      ++tokens;
    }
    CHECK(std::fabs(results[i].logprob - chosen[i].at("logprob").get<double>()) <
          1e-4 * static_cast<double>(std::max<size_t>(expected.size(), 1)));
    CHECK(results[i].greedy == chosen[i].at("greedy").get<bool>());
  }
  MESSAGE(tokens, " tokens of ", chosen.size(), " rows; the largest difference is ", worst);
  CHECK(tokens > 0);
  CHECK(worst < 1e-4);
}

TEST_CASE("greedy answers agree with transformers' to the token") {
  const auto folder = test::smollm2_folder(recorded_values);
  if (!folder) return;
  const auto tokenizer = Tokenizer::from_file(*folder + "/tokenizer.json");
  for (const nlohmann::json& line : lines_of(*test::test_data("models/smollm2-greedy.jsonl", recorded_values))) {
    std::vector<int32_t> expected = line.at("ids");
    GenerateOptions options;
    options.prompt_ids = line.at("prompt_ids").get<std::vector<int32_t>>();
    options.max_tokens = is_long() ? 96 : 32;
    options.stop_ids = {*tokenizer->token_to_id("<|im_end|>")};
    options.tokenizer = tokenizer;
    std::string streamed;
    const GenerateResult result = smollm2(*folder, BaseDType::f32)->generate(options, [&](const GeneratedToken& token) {
      streamed += token.text;
    });
    const bool whole = static_cast<int64_t>(expected.size()) <= options.max_tokens;
    if (!whole) expected.resize(static_cast<size_t>(options.max_tokens));
    CHECK(result.ids == expected);
    CHECK(streamed == result.text);
    const std::string text = line.at("text");
    if (whole && expected.back() == options.stop_ids[0]) {
      CHECK(result.stop_reason == StopReason::eos);
      CHECK(result.text == text);
    } else {
      CHECK(result.stop_reason == StopReason::length);
      CHECK(text.starts_with(result.text));
    }
  }
}

TEST_CASE("a base in bf16 and in NF4 gives sensible answers too") {
  const auto folder = test::smollm2_folder(recorded_values);
  if (!folder) return;
  const auto tokenizer = Tokenizer::from_file(*folder + "/tokenizer.json");
  const nlohmann::json capital = lines_of(*test::test_data("models/smollm2-greedy.jsonl", recorded_values)).front();
  for (const BaseDType base : {BaseDType::bf16, BaseDType::nf4}) {
    GenerateOptions options;
    options.prompt_ids = capital.at("prompt_ids").get<std::vector<int32_t>>();
    options.max_tokens = 12;
    options.stop_strings = {".", ","};
    options.tokenizer = tokenizer;
    const GenerateResult result = smollm2(*folder, base)->generate(options);
    CHECK(result.text == "The capital of France is Paris");
    CHECK(result.stop_reason == StopReason::stop_string);
  }
}
