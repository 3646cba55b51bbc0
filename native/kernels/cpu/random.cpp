#include "kernels/random.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/philox.h"

namespace caravan::cpu {

namespace {

constexpr int64_t grain = 1 << 14;

Philox4 draw(uint32_t seed, uint32_t parameter, int64_t group) {
  const uint64_t index = static_cast<uint64_t>(group);
  return philox(seed, 0, static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                static_cast<uint32_t>(PhiloxUse::init) | parameter, 0);
}

/// Calls make(words, values[4]) for every group of four elements and stores what it makes.
template <typename Make>
void fill(const Exec& exec, Ptr values, int64_t count, uint32_t seed, uint32_t parameter, Make make) {
  dispatch(values.dtype, [&]<typename T>() {
    T* out = values.as<T>();
    parallel_for(exec, (count + 3) / 4, grain, [&](int64_t first, int64_t last) {
      for (int64_t group = first; group < last; ++group) {
        float four[4];
        make(draw(seed, parameter, group), four);
        for (int64_t i = 4 * group; i < std::min(count, 4 * group + 4); ++i) out[i] = T(four[i - 4 * group]);
      }
    });
  });
}

}  // namespace

void fill_uniform(const Exec& exec, Ptr values, int64_t count, float bound, uint32_t seed, uint32_t parameter) {
  fill(exec, values, count, seed, parameter, [bound](const Philox4& bits, float* four) {
    for (int i = 0; i < 4; ++i) four[i] = bound * (2.0f * uniform01(bits.word[i]) - 1.0f);
  });
}

void fill_normal(const Exec& exec, Ptr values, int64_t count, float deviation, uint32_t seed, uint32_t parameter) {
  fill(exec, values, count, seed, parameter, [deviation](const Philox4& bits, float* four) {
    for (int i = 0; i < 4; i += 2) {
      const double u = (static_cast<double>(bits.word[i] >> 8) + 1.0) * 0x1p-24;  // (0, 1]: its logarithm is finite
      const double angle = 2.0 * std::numbers::pi * static_cast<double>(uniform01(bits.word[i + 1]));
      const double radius = static_cast<double>(deviation) * std::sqrt(-2.0 * std::log(u));
      four[i] = static_cast<float>(radius * std::cos(angle));
      four[i + 1] = static_cast<float>(radius * std::sin(angle));
    }
  });
}

void fill_constant(const Exec& exec, Ptr values, int64_t count, float value) {
  fill(exec, values, count, 0, 0, [value](const Philox4&, float* four) {
    for (int i = 0; i < 4; ++i) four[i] = value;
  });
}

}  // namespace caravan::cpu
