#include "kernels/minhash.h"

#include <algorithm>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/minhash_kernels.h"

namespace caravan {

void minhash_minima(uint32_t* minima, const uint32_t* hashes, int64_t count, const uint64_t* a, const uint64_t* b,
                    int64_t permutations) {
  int64_t done = 0;
#if defined(CARAVAN_X86_64)
  switch (cpu::cpu_isa()) {
    case cpu::Isa::avx512bf16:
    case cpu::Isa::avx512:
      done = permutations / 8 * 8;
      cpu::avx512::minhash_minima(minima, hashes, count, a, b, done);
      break;
    case cpu::Isa::avx2:
      done = permutations / 8 * 8;
      cpu::avx2::minhash_minima(minima, hashes, count, a, b, done);
      break;
    case cpu::Isa::portable: break;
  }
#endif
  for (int64_t i = done; i < permutations; ++i) {
    uint32_t least = 0xffffffffu;
    for (int64_t j = 0; j < count; ++j) least = std::min(least, minhash_permute(hashes[j], a[i], b[i]));
    minima[i] = least;
  }
}

}  // namespace caravan
