#include "kernels/dropout.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/philox_words.h"

namespace caravan::cpu {
namespace {

constexpr int64_t row_grain = 4;
/// Channels whose random words are drawn at a time: 4 KiB of them.
constexpr int64_t chunk = 1024;

template <typename T, bool accumulate>
void apply_row(T* y, const T* x, const uint32_t* words, int64_t count, uint32_t threshold, float scale) {
  for (int64_t j = 0; j < count; ++j) {
    const float kept = words[j] >= threshold ? static_cast<float>(x[j]) * scale : 0.0f;
    y[j] = accumulate ? T(static_cast<float>(y[j]) + kept) : T(kept);
  }
}

template <typename T, bool accumulate>
void apply(const Exec& exec, T* y, const T* x, const DropoutMask& mask, int64_t n, int64_t c) {
  const auto threshold = static_cast<uint32_t>(std::floor(static_cast<double>(mask.p) * 4294967296.0));
  const float scale = 1.0f / (1.0f - mask.p);
  parallel_for(exec, n, row_grain, [&](int64_t first, int64_t last) {
    uint32_t words[chunk];
    for (int64_t r = first; r < last; ++r) {
      const PhiloxRow row{mask.seed, mask.step, static_cast<uint32_t>(mask.conversation[r]),
                          static_cast<uint32_t>(mask.position[r]), mask.layer * 16 + static_cast<uint32_t>(mask.site)};
      for (int64_t j = 0; j < c; j += chunk) {
        const int64_t count = std::min(chunk, c - j);
        philox_words(words, row, static_cast<uint32_t>(j / 4), (count + 3) / 4);
        apply_row<T, accumulate>(y + r * c + j, x + r * c + j, words, count, threshold, scale);
      }
    }
  });
}

}  // namespace

void dropout_apply(const Exec& exec, Ptr y, ConstPtr x, const DropoutMask& mask, int64_t n, int64_t c,
                   bool accumulate) {
  dispatch(y.dtype, [&]<typename T>() {
    if (mask.p == 0.0f) {
      parallel_for(exec, n, row_grain, [&](int64_t first, int64_t last) {
        for (int64_t i = first * c; i < last * c; ++i)
          y.as<T>()[i] =
              accumulate ? T(static_cast<float>(y.as<T>()[i]) + static_cast<float>(x.as<T>()[i])) : x.as<T>()[i];
      });
    } else if (accumulate) {
      apply<T, true>(exec, y.as<T>(), x.as<T>(), mask, n, c);
    } else {
      apply<T, false>(exec, y.as<T>(), x.as<T>(), mask, n, c);
    }
  });
}

}  // namespace caravan::cpu
