// AdamW against PyTorch's formula in fp64, the 8-bit form against bitsandbytes' written out and against its own output,
// stochastic rounding against its definition, and which tensors get which state.
#include "kernels/optimizer.h"

#include <algorithm>
#include <cstring>

#include "engine/io/safetensors.h"
#include "engine/train/adamw.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/nf4.h"
#include "kernels/philox.h"
#include "test_data.h"
#include "tiny_model.h"
#include "typed_array.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr DType dtypes[] = {DType::f32, DType::bf16};

AdamWOptions options_at(int64_t step, float weight_decay, float gradient_scale = 1.0f) {
  AdamWOptions options;
  options.lr = 1e-3f;
  options.weight_decay = weight_decay;
  options.step = step;
  options.gradient_scale = gradient_scale;
  options.seed = 99;
  options.parameter = 4;
  return options;
}

/// torch.optim.AdamW (not amsgrad) in fp64.
struct TorchAdamW {
  std::vector<double> p, m, v;

  explicit TorchAdamW(const TypedArray& initial) : m(static_cast<size_t>(initial.count())), v(m) {
    for (int64_t i = 0; i < initial.count(); ++i) p.push_back(initial[i]);
  }
  void step(const TypedArray& g, const AdamWOptions& o) {
    const double b1 = o.beta1, b2 = o.beta2, t = static_cast<double>(o.step);
    for (size_t i = 0; i < p.size(); ++i) {
      const double gradient = static_cast<double>(g[static_cast<int64_t>(i)]) * o.gradient_scale;
      p[i] *= 1.0 - static_cast<double>(o.lr) * o.weight_decay;
      m[i] = b1 * m[i] + (1.0 - b1) * gradient;
      v[i] = b2 * v[i] + (1.0 - b2) * gradient * gradient;
      const double denominator = std::sqrt(v[i]) / std::sqrt(1.0 - std::pow(b2, t)) + o.eps;
      p[i] -= o.lr / (1.0 - std::pow(b1, t)) * m[i] / denominator;
    }
  }
};

/// Gradients whose size varies by block, as a model's do, with some exact zeros.
TypedArray make_gradient(DType dtype, int64_t count, uint32_t seed) {
  TypedArray g(dtype, count, seed, 0.01f);
  for (int64_t i = 0; i < count; ++i) {
    const float scale = std::pow(10.0f, static_cast<float>(i / 256 % 5) - 3.0f);
    cpu::store_element(g.ptr(), i, i % 97 == 0 ? 0.0f : g[i] * scale);
  }
  return g;
}

struct EightBit {
  std::vector<uint8_t> state1, state2;
  std::vector<float> absmax1, absmax2;

  explicit EightBit(int64_t count)
      : state1(static_cast<size_t>(count)),
        state2(state1),
        absmax1(static_cast<size_t>((count + adamw8bit_block - 1) / adamw8bit_block)),
        absmax2(absmax1) {}
  void update(const Exec& exec, TypedArray& p, const TypedArray& g, const AdamWOptions& options) {
    adamw8bit_update(exec, p.ptr(), g.ptr(), state1.data(), state2.data(), absmax1.data(), absmax2.data(), p.count(),
                     options);
  }
  bool operator==(const EightBit&) const = default;
};

uint8_t nearest_code(const std::array<float, 256>& code, double value) {
  size_t best = 0;
  for (size_t i = 1; i < 256; ++i) {
    if (std::fabs(code[i] - value) < std::fabs(code[best] - value)) best = i;
  }
  return static_cast<uint8_t>(best);
}

/// bitsandbytes' blockwise AdamW in fp64 from the codes of the step before, block by block.
struct BlockwiseStep {
  std::vector<double> p, first, second;
  std::vector<double> absmax1, absmax2;

  BlockwiseStep(const TypedArray& before, const TypedArray& g, const EightBit& state, const AdamWOptions& o) {
    const double b1 = o.beta1, b2 = o.beta2, t = static_cast<double>(o.step);
    const double root = std::sqrt(1.0 - std::pow(b2, t));
    const double step_size = -o.lr * root / (1.0 - std::pow(b1, t));
    absmax1.assign(state.absmax1.size(), 0.0);
    absmax2.assign(state.absmax1.size(), 0.0);
    for (int64_t i = 0; i < before.count(); ++i) {
      const size_t at = static_cast<size_t>(i), block = at / adamw8bit_block;
      const double gradient = static_cast<double>(g[i]) * o.gradient_scale;
      const bool finite = std::isfinite(gradient);
      const double old1 = static_cast<double>(dynamic_code_signed[state.state1[at]]) * state.absmax1[block];
      const double old2 = static_cast<double>(dynamic_code_unsigned[state.state2[at]]) * state.absmax2[block];
      first.push_back(finite ? old1 * b1 + (1.0 - b1) * gradient : 0.0);
      second.push_back(finite ? old2 * b2 + (1.0 - b2) * gradient * gradient : 0.0);
      absmax1[block] = std::max(absmax1[block], std::fabs(first[at]));
      absmax2[block] = std::max(absmax2[block], second[at]);
      p.push_back(before[i]);
      if (!finite) continue;
      p[at] += step_size * first[at] / (std::sqrt(second[at]) + root * o.eps);
      if (o.weight_decay > 0.0f) p[at] *= 1.0 - static_cast<double>(o.lr) * o.weight_decay;
    }
  }
  uint8_t code1(size_t i) const {
    const double absmax = absmax1[i / adamw8bit_block];
    const double value = absmax > 0.0 ? first[i] / absmax : 0.0;
    uint8_t code = nearest_code(dynamic_code_signed, value);
    if (std::signbit(dynamic_code_signed[code]) != std::signbit(value)) code += value > 0.0 ? 1 : -1;
    return code;
  }
  uint8_t code2(size_t i) const {
    const double absmax = absmax2[i / adamw8bit_block];
    return nearest_code(dynamic_code_unsigned, absmax > 0.0 ? second[i] / absmax : 0.0);
  }
};

/// How many codes differ; fails where one differs by more than one.
int64_t count_neighbours(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b, const char* what) {
  REQUIRE(a.size() == b.size());
  int64_t different = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    ++different;
    if (std::abs(int{a[i]} - int{b[i]}) > 1) FAIL_CHECK(what << " " << i << ": " << int{a[i]} << ", not " << int{b[i]});
  }
  return different;
}

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
  settings.eight_bit = true;
  settings.weight_decay = 0.5f;
  AdamW optimizer(*set, settings);
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

namespace {

/// One parameter's recorded way through bitsandbytes.
class Recorded {
 public:
  Recorded(const SafetensorsFile& file, std::string prefix, bool narrow)
      : file_(file), prefix_(std::move(prefix)), dtype_(narrow ? DType::bf16 : DType::f32) {}

  TypedArray array(const std::string& name) const {
    const TensorInfo& tensor = file_.get(prefix_ + name);
    const auto span = file_.bytes(tensor);
    TypedArray values(tensor.type == StoredType::U16 ? DType::bf16 : DType::f32, tensor.elements());
    std::memcpy(values.bytes.data(), span.data(), span.size());
    return values;
  }
  std::vector<uint8_t> codes(const std::string& name) const {
    const auto span = file_.as<uint8_t>(file_.get(prefix_ + name));
    return {span.begin(), span.end()};
  }
  TypedArray p(int64_t step) const { return array(std::string("p") + std::to_string(step)); }
  TypedArray g(int64_t step) const { return array(std::string("g") + std::to_string(step)); }
  DType dtype() const { return dtype_; }

 private:
  const SafetensorsFile& file_;
  std::string prefix_;
  DType dtype_;
};

void decay(TypedArray& p, const AdamWOptions& o) {
  for (int64_t i = 0; i < p.count(); ++i) cpu::store_element(p.ptr(), i, p[i] * (1.0f - o.lr * o.weight_decay));
}

/// bitsandbytes computes 1 - 0.999^t in fp32, which moves a step of lr 1e-3 by up to 5e-8.
constexpr double correction_rounding = 5e-8;
/// Stochastic rounding gives one of the two neighbours of a value and bitsandbytes the nearest (twice with decay).
double bf16_steps(double value, int steps) { return std::fabs(value) * steps / 127.0 + correction_rounding; }

double largest_of(const TypedArray& values) {
  double largest = 0.0;
  for (int64_t i = 0; i < values.count(); ++i) largest = std::max<double>(largest, std::fabs(values[i]));
  return largest;
}

template <typename Compare>
void for_recorded(const char* kind, Compare compare) {
  const auto path =
      test_data("data/bitsandbytes-cases.safetensors", std::string(kind) + " against bitsandbytes' output");
  if (!path) return;
  const SafetensorsFile file = SafetensorsFile::open(*path);
  for (const float weight_decay : {0.0f, 0.1f}) {
    for (const bool narrow : {false, true}) {
      const std::string prefix =
          std::string(kind) + (weight_decay == 0.0f ? ".wd0.0" : ".wd0.1") + (narrow ? ".bfloat16." : ".float32.");
      INFO(prefix);
      compare(Recorded(file, prefix, narrow), weight_decay);
    }
  }
}

}  // namespace

TEST_CASE("8 bits: four steps of bitsandbytes' own output") {
  for_recorded("adamw8bit", [](const Recorded& recorded, float weight_decay) {
    const TypedArray map1 = recorded.array("final.qmap1"), map2 = recorded.array("final.qmap2");
    for (int64_t i = 0; i < 256; ++i) {
      REQUIRE(map1[i] == dynamic_code_signed[static_cast<size_t>(i)]);
      REQUIRE(map2[i] == dynamic_code_unsigned[static_cast<size_t>(i)]);
    }
    TypedArray p = recorded.p(0);
    const int64_t count = p.count();
    EightBit state(count);
    for (int64_t step = 1; step <= 4; ++step) {
      // In bf16 each step starts from the recorded one: only a single rounding can be compared.
      if (recorded.dtype() == DType::bf16) p = recorded.p(step - 1);
      state.update({}, p, recorded.g(step), options_at(step, weight_decay));
      const TypedArray expected = recorded.p(step);
      check_elements(
          std::string("p") + std::to_string(step), count, [&](int64_t i) { return p[i]; },
          [&](int64_t i) { return expected[i]; },
          [&](double value) {
            return recorded.dtype() == DType::f32 ? 2e-7 : bf16_steps(value, weight_decay > 0.0f ? 2 : 1);
          });
    }
    CHECK(count_neighbours(state.state1, recorded.codes("final.state1"), "state1") <= count / 5000);
    CHECK(count_neighbours(state.state2, recorded.codes("final.state2"), "state2") <= count / 5000);
    const TypedArray absmax1 = recorded.array("final.absmax1"), absmax2 = recorded.array("final.absmax2");
    for (int64_t b = 0; b < absmax1.count(); ++b) {
      REQUIRE(state.absmax1[static_cast<size_t>(b)] == doctest::Approx(absmax1[b]).epsilon(1e-6));
      REQUIRE(state.absmax2[static_cast<size_t>(b)] == doctest::Approx(absmax2[b]).epsilon(1e-6));
    }
  });
}

TEST_CASE("32 bits: four steps of bitsandbytes' own output, decay put after the update as it does") {
  for_recorded("adamw32bit", [](const Recorded& recorded, float weight_decay) {
    TypedArray p = recorded.p(0);
    const int64_t count = p.count();
    TypedArray m(DType::f32, count), v(DType::f32, count);
    for (int64_t step = 1; step <= 4; ++step) {
      if (recorded.dtype() == DType::bf16) p = recorded.p(step - 1);
      adamw_update({}, p.ptr(), recorded.g(step).ptr(), m.floats(), v.floats(), count, options_at(step, 0.0f));
      if (weight_decay > 0.0f) decay(p, options_at(step, weight_decay));
      const TypedArray expected = recorded.p(step);
      check_elements(
          std::string("p") + std::to_string(step), count, [&](int64_t i) { return p[i]; },
          [&](int64_t i) { return expected[i]; },
          [&](double value) {
            return recorded.dtype() == DType::f32 ? 4.0 * correction_rounding
                                                  : bf16_steps(value, weight_decay > 0.0f ? 2 : 1);
          });
    }
    const TypedArray m4 = recorded.array("final.state1"), v4 = recorded.array("final.state2");
    const double largest_m = largest_of(m4);
    check_elements(
        "m", count, [&](int64_t i) { return m[i]; }, [&](int64_t i) { return m4[i]; },
        [&](double) { return 2e-7 * largest_m; });
    check_elements(
        "v", count, [&](int64_t i) { return v[i]; }, [&](int64_t i) { return v4[i]; },
        [](double value) { return 1e-12 + 1e-6 * std::fabs(value); });
  });
}
