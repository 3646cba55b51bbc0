// The one exception that crosses the engine: a stable code for callers to branch on, and a sentence for people.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace caravan {

/// Thrown by kernels and engine alike. `code` is one of the contract's error codes (snake_case, e.g. "bad_file",
/// "out_of_memory", "unsupported_architecture"); `what()` names the file, field or operation and how to mend it.
struct EngineError : std::runtime_error {
  std::string code;

  EngineError(std::string error_code, const std::string& message)
      : std::runtime_error(message), code(std::move(error_code)) {}
};

}  // namespace caravan
