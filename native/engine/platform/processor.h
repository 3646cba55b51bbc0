// The processor that runs this.
#pragma once

#include <string>

namespace caravan {

/// "AMD EPYC 9654 96-Core Processor"; "unknown processor" where the system does not tell.
std::string processor_name();
/// Logical cores that this process may use.
int usable_cores();

}  // namespace caravan
