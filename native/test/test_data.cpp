#include "test_data.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "engine/platform/file.h"

namespace caravan::test {

std::optional<std::string> test_data(const std::string& file, const std::string& what) {
  const char* folder = std::getenv("CARAVAN_TEST_DATA");
  if (folder != nullptr && *folder != '\0') return std::string(folder) + "/" + file;
  std::printf("SKIPPED %s: set CARAVAN_TEST_DATA to the folder that holds data/ and models/\n", what.c_str());
  return std::nullopt;
}

std::optional<std::string> smollm2_folder(const std::string& what) {
  namespace fs = std::filesystem;
  const std::optional<std::string> script = test_data("models/to_huggingface.py", what);
  if (!script) return std::nullopt;
  const fs::path folder = fs::path(CARAVAN_TEST_OUT) / "test-data" / "smollm2-f32";
  if (fs::exists(folder / "tokenizer.json")) return folder.string();
  // Tests run side by side: each writes its own copy, the first to be done stays.
  const fs::path partial = folder.string() + ".partial-" + std::to_string(process_id());
  fs::remove_all(partial);
  fs::create_directories(folder.parent_path());
  const std::string command = "python3 \"" + *script + "\" \"" + partial.string() + "\" --dtype f32";
  if (std::system(command.c_str()) != 0) {
    fs::remove_all(partial);
    std::printf("SKIPPED %s: pip install numpy gguf\n", what.c_str());
    return std::nullopt;
  }
  std::error_code taken;
  fs::rename(partial, folder, taken);
  if (taken) fs::remove_all(partial);
  return folder.string();
}

}  // namespace caravan::test
