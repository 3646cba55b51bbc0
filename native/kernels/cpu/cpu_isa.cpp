#include "kernels/cpu/cpu_isa.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

namespace caravan::cpu {
namespace {

Isa widest() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    return __builtin_cpu_supports("avx512bf16") ? Isa::avx512bf16 : Isa::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::portable;
}

Isa chosen() {
  const Isa best = widest();
  const char* wish = std::getenv("CARAVAN_ISA");
  if (wish == nullptr) return best;
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512bf16}) {
    if (isa <= best && std::strcmp(wish, isa_name(isa)) == 0) return isa;
  }
  return best;
}

std::atomic<Isa>& current() {
  static std::atomic<Isa> isa{chosen()};
  return isa;
}

}  // namespace

Isa cpu_isa() { return current().load(std::memory_order_relaxed); }

Isa limit_cpu_isa(Isa isa) {
  current() = std::min(isa, widest());
  return cpu_isa();
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512bf16: return "avx512bf16";
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    case Isa::portable: return "portable";
  }
  return "portable";
}

}  // namespace caravan::cpu
