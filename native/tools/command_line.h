// Arguments of a command-line program, and its exit codes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace caravan {

/// `--name value` pairs and what stands between them.
class CommandLine {
 public:
  /// @throws EngineError bad_option for an option that is not among `allowed`, or without a value.
  CommandLine(int argc, char** argv, const std::vector<std::string>& allowed);

  const std::vector<std::string>& plain() const { return plain_; }
  bool has(const std::string& name) const { return values_.contains(name); }
  std::string text(const std::string& name, const std::string& otherwise = "") const;
  /// @throws EngineError bad_option when it is missing.
  std::string required(const std::string& name) const;
  /// A whole number of at least `least`. @throws EngineError bad_option
  int64_t whole(const std::string& name, int64_t otherwise, int64_t least) const;
  /// A number above 0. @throws EngineError bad_option
  double positive(const std::string& name, double otherwise) const;

 private:
  std::vector<std::string> plain_;
  std::map<std::string, std::string> values_;
};

/// Runs `program`; an error goes to stderr with `usage` where it is one of the caller. Exit codes: 0 done, 2 bad input,
/// 3 the machine lacks something, 4 interrupted with state kept, 1 a bug.
int run_program(const char* usage, const std::function<int()>& program);

}  // namespace caravan
