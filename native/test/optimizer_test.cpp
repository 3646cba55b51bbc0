// AdamW against PyTorch's formula in fp64, the 8-bit form against bitsandbytes' written out, stochastic rounding against
// its definition, and which tensors get which state. bitsandbytes' own output: optimizer_bitsandbytes_test.cpp.
#include "kernels/optimizer.h"

#include <cstring>

#include "adamw_twins.h"
#include "engine/train/adamw.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/philox.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr DType dtypes[] = {DType::f32, DType::bf16};

}  // namespace

TEST_CASE("32 bits: PyTorch's AdamW for every size and type of gradient, on any number of threads") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for (const int64_t count : {1, 7, 4097, 10001}) {
    for (const DType dtype : dtypes) {
      for (const float decay : {0.0f, 0.1f}) {
        TypedArray p(DType::f32, count, 1), m(DType::f32, count), v(DType::f32, count);
        TypedArray threaded = p, m2 = m, v2 = v;
        TorchAdamW expected(p);
        for (int64_t step = 1; step <= 4; ++step) {
          const TypedArray g = make_gradient(dtype, count, static_cast<uint32_t>(10 + step));
          const AdamWOptions options = options_at(step, decay, 0.3f);
          adamw_update({}, p.ptr(), g.ptr(), m.floats(), v.floats(), count, options);
          adamw_update(exec, threaded.ptr(), g.ptr(), m2.floats(), v2.floats(), count, options);
          expected.step(g, options);
        }
        REQUIRE(p.bytes == threaded.bytes);
        REQUIRE(m.bytes == m2.bytes);
        REQUIRE(v.bytes == v2.bytes);
        // Four times a decay and an update, each rounded at the size of p.
        check_elements(
            "p", count, [&](int64_t i) { return p[i]; }, [&](int64_t i) { return expected.p[static_cast<size_t>(i)]; },
            [](double value) { return 1e-8 + 5e-7 * std::fabs(value); });
        check_elements(
            "m", count, [&](int64_t i) { return m[i]; }, [&](int64_t i) { return expected.m[static_cast<size_t>(i)]; },
            [](double value) { return 1e-9 + 1e-6 * std::fabs(value); });
        check_elements(
            "v", count, [&](int64_t i) { return v[i]; }, [&](int64_t i) { return expected.v[static_cast<size_t>(i)]; },
            [](double value) { return 1e-12 + 1e-6 * std::fabs(value); });
      }
    }
  }
}

TEST_CASE("bf16 parameters are the f32 update rounded stochastically by the counter of the optimizer") {
  const int64_t count = 4099;
  for (const float decay : {0.0f, 0.1f}) {
    const TypedArray start(DType::bf16, count, 1), g(DType::bf16, count, 2, 0.01f);
    TypedArray narrow = start, wide(DType::f32, count);
    for (int64_t i = 0; i < count; ++i) wide.floats()[i] = start[i];
    const AdamWOptions options = options_at(1, decay);
    TypedArray m(DType::f32, count), v(DType::f32, count), m2 = m, v2 = v;
    adamw_update({}, narrow.ptr(), g.ptr(), m.floats(), v.floats(), count, options);
    adamw_update({}, wide.ptr(), g.ptr(), m2.floats(), v2.floats(), count, options);
    std::vector<bf16> rounded(static_cast<size_t>(count));
    stochastic_round({}, rounded.data(), wide.floats(), count, options.seed, 1, options.parameter, 0xffffffffu);
    CHECK(std::memcmp(rounded.data(), narrow.bytes.data(), narrow.bytes.size()) == 0);

    EightBit state(count), state2(count);
    TypedArray narrow8 = start, wide8(DType::f32, count);
    for (int64_t i = 0; i < count; ++i) wide8.floats()[i] = start[i];
    state.update({}, narrow8, g, options);
    state2.update({}, wide8, g, options);
    stochastic_round({}, rounded.data(), wide8.floats(), count, options.seed, 1, options.parameter, 0xffffffffu);
    CHECK(std::memcmp(rounded.data(), narrow8.bytes.data(), narrow8.bytes.size()) == 0);
    CHECK(state == state2);
  }
}

TEST_CASE("a tensor that is updated piece by piece has the bits of one that is updated at once") {
  const int64_t count = 2100, cut = 1024;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const TypedArray g(dtype, count, 2);
    TypedArray whole(dtype, count, 1), whole8 = whole, p = whole, p8 = whole;
    TypedArray m(DType::f32, count), v(DType::f32, count), m2 = m, v2 = v;
    std::vector<uint8_t> state1(count), state2(count), other1(count), other2(count);
    std::vector<float> absmax1(9), absmax2(9), largest1(9), largest2(9);
    for (int64_t step = 1; step <= 3; ++step) {
      AdamWOptions options = options_at(step, 0.1f);
      adamw_update({}, whole.ptr(), g.ptr(), m.floats(), v.floats(), count, options);
      adamw8bit_update({}, whole8.ptr(), g.ptr(), state1.data(), state2.data(), absmax1.data(), absmax2.data(), count,
                       options);
      for (const int64_t first : {int64_t{0}, cut}) {
        const int64_t some = first == 0 ? cut : count - cut;
        options.first = first;
        adamw_update({}, p.ptr().at(first), g.ptr().at(first), m2.floats() + first, v2.floats() + first, some, options);
        adamw8bit_update({}, p8.ptr().at(first), g.ptr().at(first), other1.data() + first, other2.data() + first,
                         largest1.data() + first / adamw8bit_block, largest2.data() + first / adamw8bit_block, some,
                         options);
      }
    }
    CHECK(p.bytes == whole.bytes);
    CHECK(p8.bytes == whole8.bytes);
    CHECK(m2.bytes == m.bytes);
    CHECK(v2.bytes == v.bytes);
    CHECK(other1 == state1);
    CHECK(other2 == state2);
    CHECK(largest1 == absmax1);
    CHECK(largest2 == absmax2);
  }
}

TEST_CASE("clipping by a scale in memory is clipping by its value, and a norm that is not finite updates nothing") {
  const int64_t count = 700;
  const TypedArray start(DType::f32, count, 1), g(DType::f32, count, 2);
  double squared = 0.25;
  squared_norm_add({}, &squared, g.ptr(), count);
  CHECK(squared == 0.25 + squared_norm({}, g.ptr(), count));
  for (const double sum : {squared, 0.0, 1e-4, static_cast<double>(INFINITY), static_cast<double>(NAN)}) {
    for (const float max_norm : {1.0f, 0.0f}) {
      float scale = 0.0f;
      double norm = 0.0;
      const double losses = 3.0, broken = NAN;
      clip_scale({}, &scale, &norm, &sum, &broken, max_norm);
      CHECK(std::isnan(scale));
      clip_scale({}, &scale, &norm, &sum, &losses, max_norm);
      const double expected = max_norm == 0.0f ? 1.0 : std::min(1.0, max_norm / (std::sqrt(sum) + 1e-6));
      TypedArray p = start, p8 = start, by_value = start, by_value8 = start;
      TypedArray m(DType::f32, count), v(DType::f32, count), m2 = m, v2 = v;
      EightBit state(count), state2(count);
      AdamWOptions options = options_at(1, 0.1f, 0.5f);
      options.device_gradient_scale = &scale;
      adamw_update({}, p.ptr(), g.ptr(), m.floats(), v.floats(), count, options);
      state.update({}, p8, g, options);
      if (!std::isfinite(sum)) {
        CHECK(std::isnan(scale));
        CHECK(p.bytes == start.bytes);
        CHECK(p8.bytes == start.bytes);
        CHECK(m.bytes == m2.bytes);
        CHECK(state == state2);
        continue;
      }
      CHECK(norm == std::sqrt(sum));
      CHECK(scale == static_cast<float>(expected));
      options = options_at(1, 0.1f, 0.5f * scale);
      adamw_update({}, by_value.ptr(), g.ptr(), m2.floats(), v2.floats(), count, options);
      state2.update({}, by_value8, g, options);
      CHECK(p.bytes == by_value.bytes);
      CHECK(p8.bytes == by_value8.bytes);
      CHECK(p.bytes != start.bytes);
    }
  }
}

TEST_CASE("stochastic rounding follows its definition bit by bit and is unbiased") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  const int64_t count = 10007;
  const TypedArray x(DType::f32, count, 3);
  std::vector<bf16> y(static_cast<size_t>(count)), other(y);
  stochastic_round(exec, y.data(), x.floats(), count, 5, 6, 7, 8);
  for (int64_t i = 0; i < count; ++i) {
    const Philox4 words = philox(5, 6, static_cast<uint32_t>(i / 4), 0, 0x90000000u | 7u, 8);
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]) + (words.word[i % 4] >> 16);
    REQUIRE(y[static_cast<size_t>(i)].bits == bits >> 16);
  }
  const auto differs = [&](uint32_t seed, uint32_t step, uint32_t parameter, uint32_t micro) {
    stochastic_round({}, other.data(), x.floats(), count, seed, step, parameter, micro);
    int64_t different = 0;
    for (size_t i = 0; i < y.size(); ++i) different += y[i].bits != other[i].bits;
    return different > count / 4;
  };
  CHECK(!differs(5, 6, 7, 8));
  CHECK(differs(4, 6, 7, 8));
  CHECK(differs(5, 5, 7, 8));
  CHECK(differs(5, 6, 6, 8));
  CHECK(differs(5, 6, 7, 7));

  // 1.001 lies 0.128 of a step above 1: the mean of many roundings is 1.001 within five standard deviations.
  const std::vector<float> same(100000, 1.001f);
  std::vector<bf16> rounded(same.size());
  stochastic_round({}, rounded.data(), same.data(), static_cast<int64_t>(same.size()), 1, 1, 1, 1);
  double sum = 0.0;
  for (const bf16 value : rounded) {
    REQUIRE((value == 1.0f || value == 1.0078125f));
    sum += value;
  }
  CHECK(std::fabs(sum / 1e5 - 1.001) < 5.0 * 0.0078125 * std::sqrt(0.128 * 0.872 / 1e5));

  const std::vector<float> special = {0.0f, -0.0f, 1.5f, INFINITY, -INFINITY, NAN, -2.0f, 3.3895314e38f};
  stochastic_round({}, rounded.data(), special.data(), static_cast<int64_t>(special.size()), 1, 1, 1, 1);
  for (size_t i = 0; i < special.size(); ++i) {
    if (std::isnan(special[i])) {
      CHECK(std::isnan(static_cast<float>(rounded[i])));
    } else {
      CHECK(std::bit_cast<uint32_t>(static_cast<float>(rounded[i])) == std::bit_cast<uint32_t>(special[i]));
    }
  }
}

TEST_CASE("8 bits: bitsandbytes' blockwise update for every element, block and code") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for (const int64_t count : {1, 255, 257, 10317}) {
    for (const DType dtype : dtypes) {
      for (const float decay : {0.0f, 0.1f}) {
        TypedArray p(DType::f32, count, 1), threaded = p;
        EightBit state(count), state2(count);
        for (int64_t step = 1; step <= 4; ++step) {
          const TypedArray g = make_gradient(dtype, count, static_cast<uint32_t>(20 + step));
          const AdamWOptions options = options_at(step, decay, 0.3f);
          const BlockwiseStep expected(p, g, state, options);
          state.update({}, p, g, options);
          state2.update(exec, threaded, g, options);
          REQUIRE(p.bytes == threaded.bytes);
          REQUIRE(state == state2);
          check_elements(
              "p", count, [&](int64_t i) { return p[i]; },
              [&](int64_t i) { return expected.p[static_cast<size_t>(i)]; },
              [](double value) { return 1e-8 + 1.3e-7 * std::fabs(value); });
          for (size_t b = 0; b < state.absmax1.size(); ++b) {
            REQUIRE(state.absmax1[b] == doctest::Approx(expected.absmax1[b]).epsilon(1e-6));
            REQUIRE(state.absmax2[b] == doctest::Approx(expected.absmax2[b]).epsilon(1e-6));
          }
          std::vector<uint8_t> codes1, codes2;
          for (size_t i = 0; i < p.bytes.size() / 4; ++i) {
            codes1.push_back(expected.code1(i));
            codes2.push_back(expected.code2(i));
          }
          // fp32 against fp64 beside a midpoint.
          CHECK(count_neighbours(state.state1, codes1, "state1") <= count / 1000);
          CHECK(count_neighbours(state.state2, codes2, "state2") <= count / 1000);
        }
      }
    }
  }
}

TEST_CASE("8 bits: a negative moment too small for its block keeps its sign") {
  const int64_t count = 3;
  TypedArray p(DType::f32, std::vector<float>{1.0f, 1.0f, 1.0f});
  const TypedArray g(DType::f32, std::vector<float>{1.0f, -1e-9f, 1e-9f});
  EightBit state(count);
  state.update({}, p, g, options_at(1, 0.0f));
  CHECK(int{state.state1[0]} == 255);
  CHECK(int{state.state1[1]} == 126);  // the nearest is 127, which is 0
  CHECK(int{state.state1[2]} == 127);
}

TEST_CASE("8 bits: where a gradient is not finite the parameter stays, its state is zero, and its block goes on") {
  const int64_t count = 300;
  const TypedArray start(DType::f32, count, 1);
  TypedArray p = start, g = make_gradient(DType::f32, count, 2);
  EightBit state(count);
  state.update({}, p, g, options_at(1, 0.1f));
  const TypedArray before = p;
  g.floats()[5] = NAN;
  g.floats()[260] = INFINITY;
  state.update({}, p, g, options_at(2, 0.1f));
  for (int64_t i = 0; i < count; ++i) {
    const bool bad = i == 5 || i == 260;
    CHECK((p[i] == before[i]) == bad);
    if (!bad) continue;
    CHECK(dynamic_code_signed[state.state1[static_cast<size_t>(i)]] == 0.0f);
    CHECK(dynamic_code_unsigned[state.state2[static_cast<size_t>(i)]] == 0.0f);
  }
  for (const float absmax : state.absmax1) CHECK(std::isfinite(absmax));
}

TEST_CASE("the squared norm is exact to fp64, the same on any number of threads, and does not hide a NaN") {
  for (const DType dtype : dtypes) {
    for (const int64_t count : {0, 1, 5, 16384, 70001}) {
      const TypedArray g(dtype, count, 3);
      double expected = 0.0;
      for (int64_t i = 0; i < count; ++i) expected += static_cast<double>(g[i]) * g[i];
      const double one = squared_norm({}, g.ptr(), count);
      CHECK(one == doctest::Approx(expected).epsilon(1e-13));
      const auto pool = make_thread_pool(3);
      Exec exec;
      exec.pool = pool.get();
      CHECK(squared_norm(exec, g.ptr(), count) == one);
    }
  }
  TypedArray g(DType::f32, 40000, 3);
  g.floats()[39999] = NAN;
  CHECK(std::isnan(squared_norm({}, g.ptr(), 40000)));
}

TEST_CASE("embeddings, small tensors and vectors keep 32-bit state; vectors do not decay") {
  const ModelConfig config = parse_model_config(
      R"({"architectures": ["Qwen2ForCausalLM"], "hidden_size": 64, "intermediate_size": 65, "num_hidden_layers": 1,
      "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 80,
      "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu"})",
      "tiny");
  MethodOptions method;
  method.method = Method::full;
  const auto set = std::make_shared<TrainableSet>(Device::cpu, config, method, DType::f32);
  set->allocate_gradients();
  for (const Parameter& parameter : set->parameters()) {
    for (int64_t i = 0; i < parameter.count; ++i) parameter.value.as<float>()[i] = 2.0f;
  }
  AdamWSettings settings;
  settings.kind.eight_bit = true;
  settings.weight_decay = 0.5f;
  AdamW optimizer({}, *set, settings);
  int eight_bit = 0, wide = 0;
  for (const StateArray& array : optimizer.arrays()) {
    if (array.name.ends_with(".state1")) {
      ++eight_bit;
      const std::string parameter = array.name.substr(0, array.name.size() - 7);
      CHECK(parameter != "model.embed_tokens.weight");
      CHECK(set->find(parameter)->count >= 4096);
    }
    if (array.name.ends_with(".m")) {
      ++wide;
      const std::string parameter = array.name.substr(0, array.name.size() - 2);
      CHECK((parameter == "model.embed_tokens.weight" || set->find(parameter)->count < 4096));
    }
  }
  CHECK(eight_bit == 6);  // q, o, gate, up, down, head
  CHECK(wide == 9);       // embedding, k, v, their biases with q's, three norms
  optimizer.update({}, *set, 0.1f, 1.0f, 1);
  for (const Parameter& parameter : set->parameters()) {
    const float expected = parameter.shape.size() == 1 ? 2.0f : 2.0f * (1.0f - 0.1f * 0.5f);
    for (int64_t i = 0; i < parameter.count; ++i) REQUIRE(parameter.value.as<float>()[i] == doctest::Approx(expected));
  }
}
