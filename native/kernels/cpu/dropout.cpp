#include "kernels/dropout.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/dropout_kernels.h"
#include "kernels/cpu/philox_words.h"

namespace caravan::cpu {

namespace portable {
extern const DropoutKernels dropout;
}
#if defined(CARAVAN_X86_64)
namespace avx2 {
extern const DropoutKernels dropout;
}
namespace avx512 {
extern const DropoutKernels dropout;
}
#endif

namespace {

constexpr int64_t row_grain = 4;
/// Channels whose random words are drawn at a time: 4 KiB of them.
constexpr int64_t chunk = 1024;

const DropoutKernels& kernels() {
#if defined(CARAVAN_X86_64)
  switch (cpu_isa()) {
    case Isa::avx512bf16:
    case Isa::avx512: return avx512::dropout;
    case Isa::avx2: return avx2::dropout;
    case Isa::portable: break;
  }
#endif
  return portable::dropout;
}

}  // namespace

void dropout_kept(const Exec& exec, uint32_t* kept, const DropoutMask& mask, int64_t n, int64_t c) {
  static_assert(chunk % 32 == 0);
  const auto threshold = static_cast<uint32_t>(std::floor(static_cast<double>(mask.p) * 4294967296.0));
  parallel_for(exec, n, row_grain, [&](int64_t first, int64_t last) {
    uint32_t words[chunk];
    for (int64_t r = first; r < last; ++r) {
      const PhiloxRow row{mask.seed, mask.step, static_cast<uint32_t>(mask.conversation[r]),
                          static_cast<uint32_t>(mask.position[r]), mask.layer * 16 + static_cast<uint32_t>(mask.site)};
      for (int64_t j = 0; j < c; j += chunk) {
        const int64_t count = std::min(chunk, c - j);
        philox_words(words, row, static_cast<uint32_t>(j / 4), (count + 3) / 4);
        for (int64_t i = 0; i < count; i += 32) {
          uint32_t bits = 0;
          const int64_t end = std::min<int64_t>(32, count - i);
          for (int64_t k = 0; k < end; ++k) bits |= uint32_t{words[i + k] >= threshold} << kept_bit(k);
          kept[r * kept_words(c) + (j + i) / 32] = bits;
        }
      }
    }
  });
}

void dropout_apply(const Exec& exec, Ptr y, ConstPtr x, const uint32_t* kept, float scale, int64_t n, int64_t c,
                   bool accumulate) {
  parallel_for(exec, n, row_grain, [&](int64_t first, int64_t last) {
    uint32_t words[chunk];
    for (int64_t r = first; r < last; ++r) {
      for (int64_t j = 0; j < c; j += chunk) {
        const int64_t count = std::min(chunk, c - j);
        const uint32_t* const bits = kept + r * kept_words(c) + j / 32;
        for (int64_t i = 0; i < count; ++i) words[i] = bits[i / 32] >> kept_bit(i) & 1;
        kernels().apply(y.dtype == DType::bf16, accumulate, y.at(r * c + j).data, x.at(r * c + j).data, words, count, 1,
                        scale);
      }
    }
  });
}

}  // namespace caravan::cpu
