#include "test_data.h"

#include <cstdio>
#include <cstdlib>

namespace caravan::test {

std::optional<std::string> test_data(const std::string& file, const std::string& what) {
  const char* folder = std::getenv("CARAVAN_TEST_DATA");
  if (folder != nullptr && *folder != '\0') return std::string(folder) + "/" + file;
  std::printf("SKIPPED %s: set CARAVAN_TEST_DATA to the folder that holds data/ and models/\n", what.c_str());
  return std::nullopt;
}

}  // namespace caravan::test
