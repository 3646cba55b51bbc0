#include "kernels/dropout.h"

#include <algorithm>
#include <cmath>

#include "kernels/activation.h"
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

void apply(const Exec& exec, Ptr y, ConstPtr x, const DropoutMask& mask, int64_t n, int64_t c, bool accumulate) {
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
        kernels().apply(y.dtype == DType::bf16, accumulate, y.at(r * c + j).data, x.at(r * c + j).data, words, count,
                        threshold, scale);
      }
    }
  });
}

}  // namespace

void dropout_apply(const Exec& exec, Ptr y, ConstPtr x, const DropoutMask& mask, int64_t n, int64_t c,
                   bool accumulate) {
  if (mask.p != 0.0f) return apply(exec, y, x, mask, n, c, accumulate);
  if (accumulate) {
    add_inplace(exec, y, x, n * c);
  } else {
    convert(exec, y, x, n * c);
  }
}

}  // namespace caravan::cpu
