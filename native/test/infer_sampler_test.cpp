// The choice of tokens: against Hugging Face's logits processors on recorded cases, and its random numbers.
#include <cmath>
#include <fstream>
#include <numeric>

#include <nlohmann/json.hpp>

#include "doctest/doctest.h"
#include "engine/infer/log_probability.h"
#include "engine/infer/sampler.h"
#include "engine/platform/error.h"
#include "kernels/philox.h"

using namespace caravan;

namespace {

nlohmann::json recorded_cases() {
  std::ifstream file(std::string(CARAVAN_TEST_DIR) + "/recorded/sampling.json");
  REQUIRE(file);
  return nlohmann::json::parse(file).at("cases");
}

SamplingOptions at_temperature(float temperature, uint32_t seed = 0) {
  SamplingOptions options;
  options.temperature = temperature;
  options.seed = seed;
  return options;
}

}  // namespace

TEST_CASE("penalty, temperature, top-k, top-p and min-p leave the distribution that Hugging Face's processors leave") {
  size_t cut = 0;
  for (const auto& recorded : recorded_cases()) {
    SamplingOptions options;
    options.repetition_penalty = recorded.at("repetition_penalty");
    options.temperature = recorded.at("temperature");
    options.top_k = recorded.at("top_k");
    options.top_p = recorded.at("top_p");
    options.min_p = recorded.at("min_p");
    const std::vector<float> given = recorded.at("logits");
    const std::vector<int32_t> ids = recorded.at("ids");
    const std::vector<double> expected = recorded.at("probabilities");
    std::vector<float> logits = given;
    Sampler sampler(options, static_cast<int64_t>(logits.size()), ids);
    const Sampler::Choice choice = sampler.next(logits.data());
    std::vector<double> probabilities(logits.size());
    int32_t before = -1;
    for (const Sampler::Candidate& candidate : sampler.candidates()) {
      CHECK(candidate.id > before);
      before = candidate.id;
      probabilities[static_cast<size_t>(candidate.id)] = candidate.probability;
    }
    CAPTURE(recorded.dump());
    for (size_t i = 0; i < expected.size(); ++i) {
      CHECK((probabilities[i] == 0.0) == (expected[i] == 0.0));
      CHECK(probabilities[i] == doctest::Approx(expected[i]).epsilon(1e-6));
    }
    CHECK(probabilities[static_cast<size_t>(choice.id)] > 0.0);
    CHECK(logits == given);
    cut += sampler.candidates().size() < logits.size();
  }
  CHECK(cut > 100);
}

TEST_CASE("draws follow the distribution, and are a function of seed and place alone") {
  const std::vector<double> probabilities = {0.5, 0.25, 0.125, 0.0625, 0.0625};
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  Sampler sampler(at_temperature(1.0f, 3), 5, {});
  Sampler again(at_temperature(1.0f, 3), 5, {});
  Sampler other(at_temperature(1.0f, 4), 5, {});
  constexpr int draws = 40000;
  std::vector<int> counts(5);
  int differing = 0;
  for (int i = 0; i < draws; ++i) {
    const Sampler::Choice choice = sampler.next(logits.data());
    ++counts[static_cast<size_t>(choice.id)];
    CHECK(choice.id == again.next(logits.data()).id);
    differing += choice.id != other.next(logits.data()).id;
    CHECK(choice.logprob == doctest::Approx(std::log(probabilities[static_cast<size_t>(choice.id)])).epsilon(1e-6));
  }
  double chi_squared = 0.0;
  for (size_t i = 0; i < 5; ++i) {
    const double expected = probabilities[i] * draws;
    chi_squared += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  CHECK(chi_squared < 18.5);  // 4 degrees of freedom: above it once in a thousand
  // Two draws that know nothing of each other differ with probability 1 - sum p^2 = 0.664.
  CHECK(differing > draws * 0.64);
  CHECK(differing < draws * 0.69);
}

TEST_CASE("greedy takes the first of the largest logits, after the penalty for what prompt and answer hold") {
  SamplingOptions options;
  options.repetition_penalty = 2.0f;
  options.top_k = 1;
  options.seed = 9;
  std::vector<float> logits = {1.0f, 3.0f, 3.0f, -1.0f, 2.5f};
  Sampler sampler(options, 5, std::vector<int32_t>{3});
  CHECK(sampler.next(logits.data()).id == 1);
  CHECK(sampler.next(logits.data()).id == 2);
  CHECK(sampler.next(logits.data()).id == 4);
  const Sampler::Choice fourth = sampler.next(logits.data());  // 1.5, 1.5, 1.25, and 1.0 for the one not taken yet
  CHECK(fourth.id == 1);
  CHECK(fourth.logprob == doctest::Approx(3.0 - log_sum_exp(logits.data(), 5)));
}

TEST_CASE("options out of their range are refused by name, and broken logits as a broken file") {
  const auto field_of = [](SamplingOptions options) -> std::string {
    try {
      Sampler sampler(options, 5, {});
    } catch (const EngineError& error) {
      CHECK(error.code == "bad_option");
      return error.what();
    }
    return "";
  };
  const auto with = [](auto change) {
    SamplingOptions options;
    change(options);
    return options;
  };
  CHECK(field_of(with([](auto& o) { o.temperature = -0.1f; })).starts_with("temperature"));
  CHECK(field_of(with([](auto& o) { o.temperature = NAN; })).starts_with("temperature"));
  CHECK(field_of(with([](auto& o) { o.top_k = -1; })).starts_with("topK"));
  CHECK(field_of(with([](auto& o) { o.top_p = 0.0f; })).starts_with("topP"));
  CHECK(field_of(with([](auto& o) { o.top_p = 1.5f; })).starts_with("topP"));
  CHECK(field_of(with([](auto& o) { o.min_p = -0.5f; })).starts_with("minP"));
  CHECK(field_of(with([](auto& o) { o.repetition_penalty = 0.0f; })).starts_with("repetitionPenalty"));
  CHECK(field_of(SamplingOptions()).empty());

  std::vector<float> logits = {1.0f, NAN, 0.0f};
  Sampler sampler(SamplingOptions(), 3, {});
  CHECK_THROWS_WITH_AS(sampler.next(logits.data()), doctest::Contains("not finite"), EngineError);
}

TEST_CASE("the sum of exponentials is exact to fp64's rounding, and keeps up with wide ranges") {
  std::vector<float> logits;
  for (uint32_t i = 0; i < 5003; ++i) {
    logits.push_back(uniform01(philox(1, 2, i, 0, 0, 0).word[0]) * 60.0f - 50.0f);
  }
  long double sum = 0.0L;
  for (const float logit : logits) sum += std::exp(static_cast<long double>(logit));
  CHECK(log_sum_exp(logits.data(), 5003) == doctest::Approx(static_cast<double>(std::log(sum))).epsilon(1e-15));
  for (const double x : {0.0, -1e-9, -0.3, -1.0, -37.5, -700.0}) {
    CHECK(exp_of_negative(x) == doctest::Approx(std::exp(x)).epsilon(3e-15));
  }
  CHECK(exp_of_negative(-1000.0) == 0.0);
  CHECK(exp_of_negative(-INFINITY) == 0.0);
  CHECK(std::isnan(exp_of_negative(NAN)));
  const float far[] = {500.0f, -500.0f, -INFINITY};
  CHECK(log_sum_exp(far, 3) == 500.0);
}
