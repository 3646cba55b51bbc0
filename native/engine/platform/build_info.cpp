#include "engine/platform/build_info.h"

#include "caravan_build_id.h"  // written by cmake/CaravanBuildId.cmake
#include "kernels/cpu/cpu_isa.h"

namespace caravan {

namespace {

std::string compiler() {
#if defined(__clang__)
  return std::string("Clang ") + __clang_version__;
#elif defined(__GNUC__)
  return std::string("GCC ") + __VERSION__;
#elif defined(_MSC_VER)
  return "MSVC " + std::to_string(_MSC_FULL_VER);
#else
  return "unknown";
#endif
}

}  // namespace

BuildInfo build_info() {
  BuildInfo info;
  info.version = CARAVAN_VERSION;
  info.build_id = CARAVAN_BUILD_ID;
  info.compiler = compiler();
#ifdef CARAVAN_CUDA
  info.cuda = true;
#endif
  info.simd_built = {cpu::isa_name(cpu::Isa::portable)};
#ifdef CARAVAN_X86_64
  info.simd_built.emplace_back(cpu::isa_name(cpu::Isa::avx2));
  info.simd_built.emplace_back(cpu::isa_name(cpu::Isa::avx512));
  info.simd_built.emplace_back(cpu::isa_name(cpu::Isa::avx512bf16));
#endif
  info.simd_used = cpu::isa_name(cpu::cpu_isa());
  return info;
}

}  // namespace caravan
