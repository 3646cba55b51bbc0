// Answers of tiny models: what ends them, what they report, and that nothing beside them changes them.
#include <algorithm>
#include <atomic>
#include <barrier>
#include <stdexcept>
#include <thread>

#include "byte_tokenizer.h"
#include "doctest/doctest.h"
#include "engine/infer/inference_model.h"
#include "engine/infer/log_probability.h"
#include "engine/infer/packed_pass.h"
#include "engine/infer/shared_step.h"
#include "engine/platform/error.h"
#include "kernels/philox.h"
#include "tiny_model.h"

using namespace caravan;
using namespace caravan::test;

namespace {

std::vector<int32_t> ids_of(int64_t count, uint32_t seed) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(philox(seed, 0, static_cast<uint32_t>(i), 0, 0, 0).word[0] % 61));
  }
  return ids;
}

std::shared_ptr<InferenceModel> open_tiny(Method method, const ModelConfig& config = tiny_config(), int threads = 2) {
  const TinySession session = make_session(Exec(), config, tiny_method(method));
  return std::make_shared<InferenceModel>(session.model, DType::f32, threads);
}

GenerateOptions ask(const std::vector<int32_t>& prompt, int64_t max_tokens, float temperature = 0.0f,
                    uint32_t seed = 0) {
  GenerateOptions options;
  options.prompt_ids = prompt;
  options.max_tokens = max_tokens;
  options.sampling.temperature = temperature;
  options.sampling.seed = seed;
  options.tokenizer = byte_tokenizer();
  return options;
}

std::string code_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const EngineError& error) {
    return error.code + ": " + error.what();
  }
  return "none";
}

}  // namespace

TEST_CASE(
    "greedy answers from the cache are those that recomputing everything gives, with the same log-probabilities") {
  for (const Method method : {Method::base, Method::lora, Method::pesc, Method::full, Method::upcycle}) {
    CAPTURE(method_name(method));
    const auto model = open_tiny(method, tiny_config("qwen3"));
    std::vector<int32_t> ids = ids_of(12, 1);
    std::vector<GeneratedToken> tokens;
    const GenerateResult result = model->generate(ask(ids, 24), [&](const GeneratedToken& t) { tokens.push_back(t); });
    REQUIRE(result.ids.size() == 24);
    REQUIRE(tokens.size() == 24);
    CHECK(result.stop_reason == StopReason::length);
    CHECK(result.prompt_tokens == 12);
    for (size_t i = 0; i < 24; ++i) {
      const std::vector<float> logits = model->logits(ids);
      const float* last = logits.data() + (ids.size() - 1) * 61;
      CHECK(result.ids[i] == arg_max(last, 61));
      CHECK(tokens[i].id == result.ids[i]);
      CHECK(tokens[i].logprob == doctest::Approx(last[result.ids[i]] - log_sum_exp(last, 61)).epsilon(1e-4));
      ids.push_back(result.ids[i]);
    }
  }
}

TEST_CASE("the same seed gives the same answer, another seed another, and threads change nothing") {
  const auto two = open_tiny(Method::pesc);
  const auto one = open_tiny(Method::pesc, tiny_config(), 1);
  const std::vector<int32_t> prompt = ids_of(20, 2);
  const GenerateResult first = two->generate(ask(prompt, 40, 1.2f, 7));
  CHECK(two->generate(ask(prompt, 40, 1.2f, 7)).ids == first.ids);
  CHECK(one->generate(ask(prompt, 40, 1.2f, 7)).ids == first.ids);
  CHECK(two->generate(ask(prompt, 40, 1.2f, 8)).ids != first.ids);
}

TEST_CASE("conversations that run at the same time answer as each does alone, beside scoring too") {
  const auto model = open_tiny(Method::pesc, tiny_config("qwen3"));
  constexpr int conversations = 4;
  std::vector<GenerateResult> alone, together(conversations);
  const auto options = [&](int i) { return ask(ids_of(5 + 9 * i, 10 + static_cast<uint32_t>(i)), 50, 0.9f, 3); };
  for (int i = 0; i < conversations; ++i) alone.push_back(model->generate(options(i)));
  const std::vector<std::vector<int32_t>> rows = {ids_of(50, 20), ids_of(33, 21)};
  const std::vector<int64_t> first = {1, 1};
  const std::vector<ScoreResult> scores = model->score(rows, first);
  std::vector<std::thread> threads;
  std::barrier told(conversations);
  for (int i = 0; i < conversations; ++i) {
    threads.emplace_back([&, i] {
      // They go from token to token side by side, so that they meet however the threads are run.
      const auto meet = [&](const GeneratedToken&) { told.arrive_and_wait(); };
      together[static_cast<size_t>(i)] = model->generate(options(i), meet);
    });
  }
  for (int round = 0; round < 5; ++round) {
    const std::vector<ScoreResult> again = model->score(rows, first);
    CHECK(again[0].token_logprobs == scores[0].token_logprobs);
    CHECK(again[1].token_logprobs == scores[1].token_logprobs);
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(model->most_answers_together() > 1);
  for (size_t i = 0; i < conversations; ++i) {
    CHECK(together[i].ids == alone[i].ids);
    CHECK(together[i].text == alone[i].text);
  }
}

TEST_CASE("a stop id is the last id and no text; a stop string ends the text before it") {
  const auto model = open_tiny(Method::base);
  const std::vector<int32_t> prompt = ids_of(10, 4);
  std::string streamed;
  const auto listen = [&](const GeneratedToken& token) { streamed += token.text; };
  const GenerateResult whole = model->generate(ask(prompt, 60, 1.5f, 5), listen);
  CHECK(streamed == whole.text);
  CHECK(whole.text == byte_tokenizer()->decode(whole.ids, true));

  const int32_t stop = whole.ids[20];
  const auto at = std::find(whole.ids.begin(), whole.ids.end(), stop) - whole.ids.begin();
  GenerateOptions options = ask(prompt, 60, 1.5f, 5);
  options.stop_ids = {900, stop};
  streamed.clear();
  const GenerateResult stopped = model->generate(options, listen);
  CHECK(stopped.stop_reason == StopReason::eos);
  CHECK(stopped.ids == std::vector<int32_t>(whole.ids.begin(), whole.ids.begin() + at + 1));
  CHECK(stopped.text == byte_tokenizer()->decode({whole.ids.data(), static_cast<size_t>(at)}, true));
  CHECK(streamed == stopped.text);

  // Three characters from the middle of the text, so that the borders of tokens fall inside them.
  size_t middle = whole.text.size() / 2;
  while ((static_cast<unsigned char>(whole.text[middle]) & 0x80) != 0) ++middle;
  options = ask(prompt, 60, 1.5f, 5);
  options.stop_strings = {whole.text.substr(middle, 3)};
  streamed.clear();
  const GenerateResult cut = model->generate(options, listen);
  CHECK(cut.stop_reason == StopReason::stop_string);
  CHECK(cut.text == whole.text.substr(0, whole.text.find(options.stop_strings[0])));
  CHECK(streamed == cut.text);
  CHECK(cut.ids == std::vector<int32_t>(whole.ids.begin(), whole.ids.begin() + static_cast<int>(cut.ids.size())));
  CHECK(cut.ids.size() < whole.ids.size());
}

TEST_CASE("an answer ends with the context, and a prompt that fills it is refused") {
  const auto model = open_tiny(Method::lora);
  CHECK(model->context_length() == 128);
  const GenerateResult result = model->generate(ask(ids_of(120, 5), 100));
  CHECK(result.stop_reason == StopReason::context);
  CHECK(result.ids.size() == 8);
  CHECK(model->generate(ask(ids_of(127, 5), 100)).ids.size() == 1);
  CHECK(code_of([&] { model->generate(ask(ids_of(128, 5), 100)); }).starts_with("bad_option: promptIds has 128"));
  CHECK(code_of([&] { model->generate(ask({}, 100)); }).starts_with("bad_option: promptIds is empty"));
  CHECK(code_of([&] { model->generate(ask({3, 61}, 100)); }).starts_with("bad_option: promptIds[1] is 61"));
  CHECK(code_of([&] { model->generate(ask({3}, 0)); }).starts_with("bad_option: maxTokens"));
}

TEST_CASE("cancelling ends an answer at its next token, and a prompt before its first") {
  const auto model = open_tiny(Method::pesc);
  std::atomic<bool> cancelled{false};
  GenerateOptions options = ask(ids_of(10, 6), 100);
  options.cancelled = &cancelled;
  int heard = 0;
  std::string streamed;
  const GenerateResult result = model->generate(options, [&](const GeneratedToken& token) {
    streamed += token.text;
    if (++heard == 3) cancelled = true;
  });
  CHECK(result.stop_reason == StopReason::cancelled);
  CHECK(result.ids.size() == 3);
  CHECK(heard == 3);
  CHECK(result.text == streamed);
  const GenerateResult none = model->generate(options, [&](const GeneratedToken&) { ++heard; });
  CHECK(none.stop_reason == StopReason::cancelled);
  CHECK(none.ids.empty());
  CHECK(heard == 3);
}

TEST_CASE("memory is counted while an answer runs and given back after, also after a listener's exception") {
  const auto model = open_tiny(Method::pesc);
  const size_t idle = model->memory_bytes();
  size_t busy = 0;
  const auto fail = [&](const GeneratedToken&) {
    busy = model->memory_bytes();
    throw std::runtime_error("listener");
  };
  CHECK_THROWS_WITH(model->generate(ask(ids_of(10, 7), 5), fail), "listener");
  // Keys and values of 128 positions, two layers, two heads of 8, f32: and more.
  CHECK(busy >= idle + 2 * 128 * 2 * 16 * 4);
  CHECK(model->memory_bytes() == idle);
  CHECK(model->generate(ask(ids_of(10, 7), 5)).ids.size() == 5);
  CHECK(model->memory_bytes() == idle);
}

TEST_CASE("reported experts are those of the pass that gave the token, in every layer, best first") {
  const Exec exec;
  const TinySession session = make_session(exec, tiny_config(), tiny_method(Method::pesc));
  InferenceModel model(session.model, DType::f32, 1);
  GenerateOptions options = ask(ids_of(10, 8), 12);
  options.report_experts = true;
  std::vector<GeneratedToken> tokens;
  const GenerateResult result = model.generate(options, [&](const GeneratedToken& t) { tokens.push_back(t); });
  std::vector<int32_t> all = options.prompt_ids;
  all.insert(all.end(), result.ids.begin(), result.ids.end());
  PackedPass pass(exec, session.model, DType::f32);
  const std::span<const int32_t> row = all;
  pass.run({&row, 1}, [&](const Layer& layer, const int32_t* chosen, const float*) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      REQUIRE(tokens[i].experts.size() == 4);
      const size_t at = static_cast<size_t>(layer.index) * 2;
      const size_t token = options.prompt_ids.size() - 1 + i;
      CHECK(tokens[i].experts[at] == chosen[2 * token]);
      CHECK(tokens[i].experts[at + 1] == chosen[2 * token + 1]);
      CHECK(tokens[i].expert_weights[at] >= tokens[i].expert_weights[at + 1]);
      CHECK(tokens[i].expert_weights[at] + tokens[i].expert_weights[at + 1] == doctest::Approx(1.0));
    }
  });
  options.report_experts = false;
  model.generate(options, [&](const GeneratedToken& token) { CHECK(token.experts.empty()); });
}

TEST_CASE("routing is counted by group, layer and slot; an expert that nobody chooses has none and harms nothing") {
  const Exec exec;
  TinySession session = make_session(exec, tiny_config(), tiny_method(Method::pesc));
  InferenceModel model(session.model, DType::f32, 1);
  const std::vector<std::vector<int32_t>> rows = {ids_of(7, 9), ids_of(30, 10), ids_of(3, 11)};
  const std::vector<int64_t> group = {0, 2, 0};
  const RouteResult result = model.route(rows, group, 3);
  CHECK(result.tokens == std::vector<double>{10.0, 0.0, 30.0});
  std::vector<double> first(24), second(24);
  PackedPass pass(exec, session.model, DType::f32);
  for (size_t r = 0; r < rows.size(); ++r) {
    const std::span<const int32_t> row = rows[r];
    pass.run({&row, 1}, [&](const Layer& layer, const int32_t* chosen, const float*) {
      for (size_t t = 0; t < row.size(); ++t) {
        const size_t at = static_cast<size_t>((group[r] * 2 + layer.index) * 4);
        first[at + static_cast<size_t>(chosen[2 * t])] += 1.0;
        second[at + static_cast<size_t>(chosen[2 * t + 1])] += 1.0;
      }
    });
  }
  CHECK(result.first == first);
  CHECK(result.second == second);
  for (size_t i = 0; i < 24; ++i) CHECK(result.any[i] == first[i] + second[i]);

  // A router of zeros makes all experts equal: the lower two are taken by every token.
  for (const Parameter& parameter : session.set->parameters()) {
    if (parameter.group == ParameterGroup::router) std::fill_n(parameter.value.as<float>(), parameter.count, 0.0f);
  }
  const RouteResult even = model.route(rows, group, 3);
  for (size_t expert = 0; expert < 8; ++expert) {
    CHECK(even.first[expert] == (expert % 4 == 0 ? 10.0 : 0.0));
    CHECK(even.second[expert] == (expert % 4 == 1 ? 10.0 : 0.0));
  }
  const GenerateResult answer = model.generate(ask(rows[1], 10));
  std::vector<int32_t> ids = rows[1];
  for (const int32_t id : answer.ids) {
    const std::vector<float> logits = model.logits(ids);
    CHECK(id == arg_max(logits.data() + (ids.size() - 1) * 61, 61));
    ids.push_back(id);
  }

  const std::vector<int64_t> outside = {0, 3, 0};
  CHECK(code_of([&] { model.route(rows, outside, 3); }).starts_with("bad_option: group[1] is 3"));
  CHECK(code_of([&] { open_tiny(Method::lora)->route(rows, group, 3); }).find("no experts") != std::string::npos);
}

TEST_CASE("dynamic scaling: an answer is what the conversation's growing length makes it") {
  ModelConfig config = tiny_config();
  config.max_positions = 32;
  config.rope.kind = RopeKind::dynamic;
  config.rope.factor = 4.0;
  const Exec exec;
  const TinySession tiny = make_session(exec, config, tiny_method(Method::lora));
  const auto stretched = std::make_shared<const Model>(exec, config, tiny.base, tiny.set, config.max_sequence());
  InferenceModel model(stretched, DType::f32, 1);
  CHECK(model.context_length() == 128);
  for (const int64_t prompt : {20, 50}) {
    const std::vector<int32_t> ids = ids_of(prompt, 12);
    const GenerateResult result = model.generate(ask(ids, 60));
    REQUIRE(result.ids.size() == 60);
    // The first token of an answer is what scoring the prompt foretells; later ones keep their keys' rotation.
    const std::vector<float> logits = model.logits(ids);
    CHECK(result.ids[0] == arg_max(logits.data() + (ids.size() - 1) * 61, 61));
    CachedDecoder decoder(exec, stretched, DType::f32, 128);
    SharedStep step(exec, stretched, DType::f32);
    REQUIRE(decoder.read(ids));
    for (const int32_t id : result.ids) {
      CHECK(id == arg_max(decoder.found().logits.data(), 61));
      const Turn turn{&decoder, id, true};
      step.run({&turn, 1});
    }
  }
  CHECK(model.generate(ask(ids_of(100, 13), 60)).stop_reason == StopReason::context);
}

TEST_CASE("dynamic scaling: what a row scores does not depend on the rows beside it") {
  ModelConfig config = tiny_config();
  config.max_positions = 32;
  config.rope.kind = RopeKind::dynamic;
  config.rope.factor = 4.0;
  const Exec exec;
  const TinySession tiny = make_session(exec, config, tiny_method(Method::lora));
  InferenceModel model(std::make_shared<const Model>(exec, config, tiny.base, tiny.set, config.max_sequence()),
                       DType::f32, 1);
  std::vector<std::vector<int32_t>> rows;
  for (const int64_t length : {20, 100, 33, 64, 32, 40}) rows.push_back(ids_of(length, static_cast<uint32_t>(length)));
  const std::vector<ScoreResult> together = model.score(rows, std::vector<int64_t>(rows.size(), 1));
  for (size_t i = 0; i < rows.size(); ++i) {
    const ScoreResult alone = model.score({&rows[i], 1}, std::vector<int64_t>{1})[0];
    CHECK(alone.token_logprobs == together[i].token_logprobs);
  }
}

TEST_CASE("rows to be scored are checked by name") {
  const auto model = open_tiny(Method::base);
  const std::vector<std::vector<int32_t>> rows = {{1, 2, 3}, {4, 5}};
  const auto score = [&](const std::vector<int64_t>& first) { return code_of([&] { model->score(rows, first); }); };
  CHECK(score({1}).starts_with("bad_option: firstScored has 1"));
  CHECK(score({1, 0}).starts_with("bad_option: firstScored[1] is 0"));
  CHECK(score({4, 1}).starts_with("bad_option: firstScored[0] is 4"));
  CHECK(score({3, 2}) == "none");
  const std::vector<std::vector<int32_t>> alien = {{1, -2, 3}};
  const std::vector<int64_t> one = {1};
  CHECK(code_of([&] { model->score(alien, one); }).starts_with("bad_option: rows[0][1] is -2"));
  const std::vector<std::vector<int32_t>> longer = {ids_of(129, 1)};
  CHECK(code_of([&] { model->score(longer, one); }).starts_with("bad_option: rows[0] has 129"));
}
