// Which instruction set this processor offers, found once.
#pragma once

#include <cstdint>

namespace caravan::cpu {

enum class Isa : uint8_t { portable, avx2, avx512, avx512bf16 };

/// The widest set that processor and operating system support, or the narrower one named by the environment variable
/// CARAVAN_ISA (portable, avx2, avx512, avx512bf16), read once: for tests, and to reproduce a run of another machine.
Isa cpu_isa();
/// From now on this set, or the widest there is below it: for tests and benchmarks that compare the sets. Returns what
/// it chose. Not while a kernel runs.
Isa limit_cpu_isa(Isa isa);
const char* isa_name(Isa isa);

}  // namespace caravan::cpu
