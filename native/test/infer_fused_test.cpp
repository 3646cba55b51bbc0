// The kernel that runs all layers of a step at once, on a GPU that has it: against the same layers piece by piece, with the
// f32 model as the measure of both; and the same bits alone and beside others, recorded or not.
#include <cmath>
#include <cstdio>

#include "doctest/doctest.h"
#include "engine/infer/rounded_set.h"
#include "engine/infer/shared_step.h"
#include "kernels/philox.h"
#include "tiny_model.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr size_t vocab = 61;
constexpr size_t steps = 24;
using Logits = std::vector<std::vector<float>>;

struct Reading {
  DType activation = DType::bf16;
  bool fused = true;
  bool capture = true;
  size_t together = 8;
};

std::vector<int32_t> ids_of(int64_t count, uint32_t seed) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(philox(seed, 0, static_cast<uint32_t>(i), 0, 0, 0).word[0] % vocab));
  }
  return ids;
}

/// Lengths on both sides of the pieces that attention takes (64 keys), and of one token.
constexpr int64_t prompts[] = {1, 62, 63, 64, 130, 2, 200, 40};

/// Logits after every token that follows a prompt, conversation by conversation.
Logits read_all(const Exec& exec, const std::shared_ptr<const Model>& model, const Reading& how,
                std::vector<int32_t>* experts = nullptr) {
  Logits logits;
  SharedStep step(exec, model, how.activation);
  step.use_fused(how.fused);
  CHECK(step.is_fused() == (how.fused && how.activation == DType::bf16));
  step.work().allow(how.capture);
  constexpr size_t conversations = std::size(prompts);
  for (size_t first = 0; first < conversations; first += how.together) {
    const size_t last = std::min(conversations, first + how.together);
    std::vector<std::unique_ptr<CachedDecoder>> decoders;
    std::vector<std::vector<int32_t>> ids;
    for (size_t i = first; i < last; ++i) {
      ids.push_back(ids_of(prompts[i] + static_cast<int64_t>(steps), static_cast<uint32_t>(i + 1)));
      decoders.push_back(std::make_unique<CachedDecoder>(exec, model, how.activation, model->positions()));
      REQUIRE(decoders.back()->read({ids.back().data(), static_cast<size_t>(prompts[i])}));
    }
    Logits found((last - first) * steps);
    std::vector<std::vector<int32_t>> chosen(found.size());
    for (size_t t = 0; t < steps; ++t) {
      std::vector<Turn> turns;
      for (size_t i = first; i < last; ++i) {
        const size_t at = static_cast<size_t>(prompts[i]) + t;
        turns.push_back({decoders[i - first].get(), ids[i - first][at], true});
      }
      step.run(turns);
      for (size_t i = 0; i < last - first; ++i) {
        found[i * steps + t] = decoders[i]->found().logits;
        chosen[i * steps + t] = decoders[i]->found().experts;
      }
    }
    logits.insert(logits.end(), found.begin(), found.end());
    if (experts == nullptr) continue;
    for (const auto& of_token : chosen) experts->insert(experts->end(), of_token.begin(), of_token.end());
  }
  return logits;
}

double distance(const Logits& a, const Logits& b) {
  double squares = 0.0, differences = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t v = 0; v < vocab; ++v) {
      squares += static_cast<double>(b[i][v]) * b[i][v];
      differences += (static_cast<double>(a[i][v]) - b[i][v]) * (static_cast<double>(a[i][v]) - b[i][v]);
    }
  }
  return std::sqrt(differences / squares);
}

/// Wide enough for every branch of the kernel: two stages of columns in the FFN, the second one short.
ModelConfig fused_config(const std::string& family, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  ModelConfig config = tiny_config(family);
  config.hidden_size = 512;
  config.intermediate_size = 4096 + 512;
  config.num_heads = heads;
  config.num_kv_heads = kv_heads;
  config.head_dim = head_dim;
  config.max_positions = 512;
  return config;
}

void compare(const Exec& exec, const ModelConfig& config, Method method_kind) {
  CAPTURE(method_name(method_kind));
  CAPTURE(config.head_dim);
  MethodOptions method = tiny_method(method_kind);
  method.lora_rank = 24;
  method.adapter_dim = 40;
  const TinySession session = make_session(exec, config, method, DType::f32, BaseDType::nf4);
  const auto rounded = session.set ? round_for_bf16(exec, config, session.set) : nullptr;
  const auto model = std::make_shared<const Model>(exec, config, session.base, rounded, config.max_positions);

  const Logits exact = read_all(exec, session.model, {DType::f32, false, true, 4});
  const Logits pieces = read_all(exec, model, {DType::bf16, false, true, 4});
  std::vector<int32_t> experts;
  const Logits fused = read_all(exec, model, {}, &experts);
  const double of_pieces = distance(pieces, exact), of_fused = distance(fused, exact);
  MESSAGE("distance from f32: in pieces " << of_pieces << ", fused " << of_fused << ", from each other "
                                          << distance(fused, pieces));
  CHECK(of_pieces < 0.2);
  CHECK(of_fused < 1.3 * of_pieces);
  for (const size_t together : {1, 3, 8}) {
    for (const bool capture : {false, true}) {
      std::vector<int32_t> again;
      CHECK(read_all(exec, model, {DType::bf16, true, capture, together}, &again) == fused);
      CHECK(again == experts);
    }
  }
}

}  // namespace

TEST_CASE("one kernel for all layers is as near to the f32 model as its pieces are, and rows do not meet") {
  const Exec exec = test_exec();
  if (exec.device == Device::cpu) {
    std::printf("SKIPPED the fused step: set CARAVAN_TEST_DEVICE to cuda on a machine with a GPU from Hopper on\n");
    return;
  }
  ModelConfig windowed = fused_config("mistral", 4, 1, 64);
  windowed.windows = {70, 0};
  for (const ModelConfig& config : {fused_config("llama", 4, 4, 128), fused_config("qwen2", 8, 2, 64),
                                    fused_config("llama", 2, 2, 128), windowed}) {
    for (const Method method : {Method::base, Method::lora, Method::pesc}) compare(exec, config, method);
  }
}
