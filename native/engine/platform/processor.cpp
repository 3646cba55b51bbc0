#include "engine/platform/processor.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <thread>

#if defined(__x86_64__) || defined(_M_X64)
#ifdef _MSC_VER
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <fstream>
#endif
#ifdef __linux__
#include <sched.h>
#endif

namespace caravan {

namespace {

#if defined(__x86_64__) || defined(_M_X64)

/// CPUID leaves 0x80000002 to 0x80000004: 48 characters, padded by blanks or zeros.
std::string brand_string() {
  std::array<uint32_t, 12> words{};
  for (uint32_t i = 0; i < 3; ++i) {
#ifdef _MSC_VER
    __cpuid(reinterpret_cast<int*>(&words[4 * i]), static_cast<int>(0x80000002u + i));
#else
    uint32_t* word = &words[4 * i];
    if (!__get_cpuid(0x80000002u + i, &word[0], &word[1], &word[2], &word[3])) return {};
#endif
  }
  std::array<char, sizeof words + 1> text{};
  std::memcpy(text.data(), words.data(), sizeof words);
  return text.data();
}

#elif defined(__APPLE__)

std::string brand_string() {
  std::array<char, 128> text{};
  size_t size = text.size() - 1;
  return sysctlbyname("machdep.cpu.brand_string", text.data(), &size, nullptr, 0) == 0 ? text.data() : "";
}

#elif defined(__linux__)

std::string brand_string() {
  std::ifstream file("/proc/device-tree/model");
  std::string name;
  std::getline(file, name, '\0');
  return name;
}

#else

std::string brand_string() { return {}; }

#endif

}  // namespace

std::string processor_name() {
  const std::string text = brand_string();
  const size_t first = text.find_first_not_of(' ');
  if (first == std::string::npos) return "unknown processor";
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

int usable_cores() {
#ifdef __linux__
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace caravan
