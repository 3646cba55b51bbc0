#include "command_line.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <new>
#include <system_error>

#include "engine/platform/error.h"

namespace caravan {

namespace {

[[noreturn]] void bad(const std::string& name, const std::string& value, const std::string& wanted) {
  throw EngineError("bad_option", "--" + name + " is \"" + value + "\"; it must be " + wanted);
}

int exit_code(const std::string& code) {
  if (code == "out_of_memory" || code == "disk_full") return 3;
  if (code == "diverged") return 4;
  return code == "internal" ? 1 : 2;
}

}  // namespace

CommandLine::CommandLine(int argc, char** argv, const std::vector<std::string>& allowed) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (!word.starts_with("--")) {
      plain_.push_back(word);
      continue;
    }
    const std::string name = word.substr(2);
    if (std::find(allowed.begin(), allowed.end(), name) == allowed.end()) {
      throw EngineError("bad_option", word + " is no option of this program");
    }
    if (i + 1 == argc) throw EngineError("bad_option", word + " needs a value after it");
    values_[name] = argv[++i];
  }
}

std::string CommandLine::text(const std::string& name, const std::string& otherwise) const {
  const auto found = values_.find(name);
  return found == values_.end() ? otherwise : found->second;
}

std::string CommandLine::required(const std::string& name) const {
  if (!has(name)) throw EngineError("bad_option", "--" + name + " is missing");
  return text(name);
}

int64_t CommandLine::whole(const std::string& name, int64_t otherwise, int64_t least) const {
  if (!has(name)) return otherwise;
  const std::string value = text(name);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number < least) {
    bad(name, value, "a whole number of at least " + std::to_string(least));
  }
  return number;
}

double CommandLine::positive(const std::string& name, double otherwise) const {
  if (!has(name)) return otherwise;
  const std::string value = text(name);
  double number = 0.0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || !std::isfinite(number) || number <= 0.0) {
    bad(name, value, "a number above 0");
  }
  return number;
}

int run_program(const char* usage, const std::function<int()>& program) {
  try {
    return program();
  } catch (const EngineError& error) {
    std::fprintf(stderr, "%s: %s\n", error.code.c_str(), error.what());
    if (error.code == "bad_option") std::fprintf(stderr, "usage: %s\n", usage);
    return exit_code(error.code);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "out_of_memory: there is not enough memory for this\n");
    return 3;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "internal: %s\n", error.what());
    return 1;
  }
}

}  // namespace caravan
