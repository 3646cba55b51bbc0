// What this binary is: version, identity, compiler, instruction sets.
#pragma once

#include <string>
#include <vector>

namespace caravan {

struct BuildInfo {
  std::string version;   // package.json's
  std::string build_id;  // hash of the native sources
  std::string compiler;
  bool cuda = false;
  std::vector<std::string> simd_built;
  std::string simd_used;
};

BuildInfo build_info();

}  // namespace caravan
