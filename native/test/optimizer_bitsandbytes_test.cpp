// AdamW in 8 and in 32 bits against four recorded steps of bitsandbytes itself.
#include <cstring>

#include "adamw_twins.h"
#include "engine/io/safetensors.h"
#include "test_data.h"

using namespace caravan;
using namespace caravan::test;

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
