#include "kernels/cpu/philox_words.h"

#include "kernels/cpu/cpu_isa.h"
#include "kernels/philox.h"

namespace caravan::cpu {

void portable::philox_words(uint32_t* words, const PhiloxRow& row, uint32_t first_group, int64_t groups) {
  for (int64_t g = 0; g < groups; ++g) {
    const Philox4 out = philox(row.key0, row.key1, row.c0, row.c1, row.c2, first_group + static_cast<uint32_t>(g));
    for (int i = 0; i < 4; ++i) words[4 * g + i] = out.word[i];
  }
}

void philox_words(uint32_t* words, const PhiloxRow& row, uint32_t first_group, int64_t groups) {
  int64_t done = 0;
#if defined(CARAVAN_X86_64)
  if (cpu_isa() != Isa::portable) {
    done = groups / 8 * 8;
    avx2::philox_words(words, row, first_group, done);
  }
#endif
  portable::philox_words(words + 4 * done, row, first_group + static_cast<uint32_t>(done), groups - done);
}

}  // namespace caravan::cpu
