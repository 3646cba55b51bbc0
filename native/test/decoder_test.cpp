// The decoder against itself: gradients against finite differences, and everything that must leave the bits (or the
// values) alone: recomputation, threads, packing, padding, accumulation, zero-initialised additions.
#include <cmath>
#include <cstring>

#include "doctest/doctest.h"
#include "tiny_model.h"

using namespace caravan;
using namespace caravan::test;

namespace {

DecoderOptions options_for(DType activation = DType::f32, bool recompute = false) {
  DecoderOptions options;
  options.activation = activation;
  options.recompute = recompute;
  options.max_tokens = 512;
  options.max_targets = 512;
  return options;
}

double total_loss(const MicroBatchResult& result, const StepPlace& place, const MethodOptions& method) {
  double loss = 0.0;
  for (const float one : result.losses) loss += one;
  loss *= place.loss_scale;
  for (const float one : result.balance_loss) loss += method.balance_coefficient * place.balance_weight * one;
  return loss;
}

struct Ran {
  double loss;
  std::vector<float> losses;
  std::vector<std::vector<float>> gradients;
};

/// Gradients of all conversations, cut into micro-batches of `per_micro`.
Ran run(const Exec& exec, const TinySession& session, const std::vector<Conversation>& conversations, int per_micro,
        const DecoderOptions& options, int64_t padding = 0) {
  Decoder decoder(exec, session.model, options);
  session.set->zero_gradients(exec);
  int64_t valid = pack(conversations).valid_tokens();
  Ran ran{0.0, {}, {}};
  const int count = static_cast<int>(conversations.size());
  for (int first = 0; first < count; first += per_micro) {
    const MicroBatch batch = pack(conversations, first, std::min(count, first + per_micro), padding);
    StepPlace place;
    place.seed = 5;
    place.step = 3;
    place.micro = static_cast<uint32_t>(first / per_micro);
    place.loss_scale = 1.0f / static_cast<float>(target_tokens(conversations));
    place.balance_weight = static_cast<float>(batch.valid_tokens()) / static_cast<float>(valid);
    const MicroBatchResult result = decoder.forward_backward(batch.tokens(), batch.targets(), place);
    ran.losses.insert(ran.losses.end(), result.losses.begin(), result.losses.end());
    ran.loss += total_loss(result, place, session.set->method());
  }
  ran.gradients = copy_gradients(*session.set);
  return ran;
}

const Method all_methods[] = {Method::lora, Method::pesc, Method::full, Method::upcycle};

}  // namespace

TEST_CASE("gradients agree with finite differences along themselves, for every parameter of every method") {
  const Exec exec;
  const auto conversations = make_conversations(4, 1);
  int checked = 0;
  for (const char* family : {"llama", "qwen2", "qwen3"}) {
    for (const Method method : all_methods) {
      MethodOptions numbers = tiny_method(method);
      numbers.lora_dropout = numbers.adapter_dropout = 0.1f;  // the masks are a function of place, so they hold still
      TinySession session = make_session(exec, tiny_config(family), numbers);
      const Ran ran = run(exec, session, conversations, 4, options_for());
      for (Parameter& parameter : session.set->parameters()) {
        const std::vector<float>& gradient = ran.gradients[parameter.index];
        double norm = 0.0;
        for (const float g : gradient) norm += static_cast<double>(g) * g;
        norm = std::sqrt(norm);
        if (norm < 2e-3) continue;
        float* value = parameter.value.as<float>();
        const std::vector<float> saved(value, value + parameter.count);
        const double epsilon = 4e-3;
        const auto loss_at = [&](double shift) {
          for (size_t i = 0; i < saved.size(); ++i) {
            value[i] = static_cast<float>(saved[i] + shift * gradient[i] / norm);
          }
          return run(exec, session, conversations, 4, options_for()).loss;
        };
        const double slope = (loss_at(epsilon) - loss_at(-epsilon)) / (2.0 * epsilon);
        std::memcpy(value, saved.data(), saved.size() * sizeof(float));
        INFO(std::string(family) << " " << std::string(method_name(method)) << " " << parameter.name << " " << norm);
        CHECK(slope == doctest::Approx(norm).epsilon(0.03));
        ++checked;
      }
    }
  }
  CHECK(checked > 200);
}

TEST_CASE("recomputation and threads leave every bit of losses and gradients alone") {
  const auto conversations = make_conversations(6, 2);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Method method : all_methods) {
      MethodOptions numbers = tiny_method(method);
      numbers.lora_dropout = numbers.adapter_dropout = 0.1f;
      TinySession session = make_session(Exec(), tiny_config("qwen3"), numbers, dtype, BaseDType::bf16);
      const Ran kept = run(Exec(), session, conversations, 3, options_for(dtype, false));
      const Ran again = run(Exec(), session, conversations, 3, options_for(dtype, true));
      DecoderOptions keeping = options_for(dtype, true);
      keeping.keep_outputs = true;
      const Ran outputs_kept = run(Exec(), session, conversations, 3, keeping);
      const Ran threaded = run(exec_with_threads(3), session, conversations, 3, options_for(dtype, true));
      INFO(std::string(method_name(method)));
      CHECK(kept.losses == again.losses);
      CHECK(kept.gradients == again.gradients);
      CHECK(kept.losses == outputs_kept.losses);
      CHECK(kept.gradients == outputs_kept.gradients);
      CHECK(kept.losses == threaded.losses);
      CHECK(kept.gradients == threaded.gradients);
    }
  }
}

TEST_CASE("packed, padded and one conversation at a time agree within rounding; so do 8x1 and 2x4") {
  const Exec exec;
  const auto conversations = make_conversations(8, 3);
  for (const Method method : all_methods) {
    MethodOptions numbers = tiny_method(method);
    numbers.lora_dropout = numbers.adapter_dropout = 0.1f;
    numbers.balance_coefficient = 0.0f;
    TinySession session = make_session(exec, tiny_config(), numbers);
    const Ran packed = run(exec, session, conversations, 8, options_for());
    const Ran padded = run(exec, session, conversations, 8, options_for(), 17);
    const Ran single = run(exec, session, conversations, 1, options_for());
    const Ran fours = run(exec, session, conversations, 4, options_for());
    INFO(std::string(method_name(method)));
    CHECK(largest_difference({padded.losses}, {packed.losses}) < 1e-6);
    CHECK(largest_difference({single.losses}, {packed.losses}) < 1e-6);
    CHECK(largest_difference(padded.gradients, packed.gradients) < 2e-5);
    CHECK(largest_difference(single.gradients, packed.gradients) < 2e-5);
    CHECK(largest_difference(fours.gradients, single.gradients) < 2e-5);
  }
}

TEST_CASE("padding adds nothing to the balance term either, and its weights over micro-batches sum to one") {
  const Exec exec;
  const auto conversations = make_conversations(8, 4);
  TinySession session = make_session(exec, tiny_config(), tiny_method(Method::pesc));
  const Ran packed = run(exec, session, conversations, 8, options_for());
  const Ran padded = run(exec, session, conversations, 8, options_for(), 23);
  CHECK(packed.loss == doctest::Approx(padded.loss).epsilon(1e-6));
  CHECK(largest_difference(padded.gradients, packed.gradients) < 2e-5);
}

TEST_CASE("at step 0 the crafted model is the base model, bit for bit, whatever the dtypes") {
  const auto conversations = make_conversations(4, 5);
  const MicroBatch batch = pack(conversations);
  std::vector<int32_t> rows(static_cast<size_t>(batch.size()));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  for (const DType activation : {DType::f32, DType::bf16}) {
    for (const BaseDType base : {BaseDType::f32, BaseDType::bf16, BaseDType::nf4}) {
      const auto logits_of = [&](Method method) {
        TinySession session = make_session(Exec(), tiny_config("qwen2"), tiny_method(method), DType::f32, base, false);
        Decoder decoder(Exec(), session.model, options_for(activation));
        std::vector<float> logits(rows.size() * 61);
        decoder.logits(batch.tokens(), rows.data(), static_cast<int64_t>(rows.size()), logits.data());
        return logits;
      };
      const std::vector<float> plain = logits_of(Method::base);
      CHECK(plain == logits_of(Method::lora));
      CHECK(plain == logits_of(Method::pesc));
      if (base == BaseDType::nf4) continue;
      const std::vector<float> upcycled = logits_of(Method::upcycle);
      double worst = 0.0, scale = 0.0;
      for (size_t i = 0; i < plain.size(); ++i) {
        worst = std::max(worst, std::fabs(static_cast<double>(plain[i]) - upcycled[i]));
        scale = std::max(scale, std::fabs(static_cast<double>(plain[i])));
      }
      CHECK(worst <= scale * (activation == DType::f32 ? 1e-5 : 0.03));
    }
  }
}

TEST_CASE("the memory plan holds what a pass takes") {
  const auto conversations = make_conversations(8, 6);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Method method : all_methods) {
      for (const int recompute : {0, 1, 2, 3}) {
        MethodOptions numbers = tiny_method(method);
        numbers.lora_dropout = numbers.adapter_dropout = 0.1f;
        TinySession session = make_session(Exec(), tiny_config("qwen3"), numbers, dtype);
        DecoderOptions options = options_for(dtype, recompute > 0);
        options.keep_outputs = recompute == 2;
        options.recompute_layers = recompute == 3 ? 1 : 0;  // of its two
        const MicroBatch batch = pack(conversations);
        options.max_tokens = batch.size();
        options.max_targets = batch.target_count();
        Decoder decoder(Exec(), session.model, options);
        const size_t before = decoder.memory_bytes();
        decoder.forward_backward(batch.tokens(), batch.targets(), StepPlace());
        INFO(std::string(method_name(method)) << std::string(recompute > 0 ? " recompute" : ""));
        CHECK(decoder.memory_bytes() == before);  // nothing had to grow
      }
    }
  }
}

TEST_CASE("a collapsed router is pushed apart by the balance loss alone, and a balanced one costs alpha per layer") {
  const Exec exec;
  const auto conversations = make_conversations(8, 8);
  const MicroBatch batch = pack(conversations);
  MethodOptions numbers = tiny_method(Method::pesc);
  numbers.balance_coefficient = 1.0f;
  TinySession session = make_session(exec, tiny_config(), numbers, DType::f32, BaseDType::f32, false);
  Decoder decoder(exec, session.model, options_for());
  StepPlace place;
  place.loss_scale = 0.0f;  // no cross entropy: what moves is moved by the balance term
  place.dropout = false;

  // Every router is zero: all logits are equal, so P is uniform and the loss is 1 whatever F is.
  for (const Parameter& parameter : session.set->parameters()) {
    if (parameter.group != ParameterGroup::router) continue;
    std::memset(parameter.value.data, 0, static_cast<size_t>(parameter.count) * 4);
  }
  session.set->zero_gradients(exec);
  for (const float loss : decoder.forward_backward(batch.tokens(), batch.targets(), place).balance_loss) {
    CHECK(loss == doctest::Approx(1.0));
  }

  // Planted collapse: experts 0 and 1 point along the mean direction of the router's input, the others against it.
  MicroBatchResult result;
  for (const Parameter& parameter : session.set->parameters()) {
    if (parameter.group != ParameterGroup::router) continue;
    float* w = parameter.value.as<float>();
    for (int64_t i = 0; i < parameter.count; ++i) w[i] = 0.05f * static_cast<float>(i % 7 - 3);
  }
  // Logits of a router see only normed inputs; find one input direction by its gradient and exploit it.
  session.set->zero_gradients(exec);
  result = decoder.forward_backward(batch.tokens(), batch.targets(), place);
  const double before = result.balance_loss[0] + result.balance_loss[1];
  CHECK(before > 2.02);
  for (int step = 0; step < 200; ++step) {
    session.set->zero_gradients(exec);
    result = decoder.forward_backward(batch.tokens(), batch.targets(), place);
    if (step == 0) CHECK(decoder.balance_gradient_norm() > 1e-3);
    for (Parameter& parameter : session.set->parameters()) {
      if (parameter.group != ParameterGroup::router) continue;
      float* w = parameter.value.as<float>();
      for (int64_t i = 0; i < parameter.count; ++i) w[i] -= 0.5f * parameter.gradient.as<float>()[i];
    }
  }
  const double after = result.balance_loss[0] + result.balance_loss[1];
  CHECK(after < 2.0 + 0.2 * (before - 2.0));
}
