// The folder of real data that some tests compare with; it is no part of the project.
#pragma once

#include <optional>
#include <string>

namespace caravan::test {

/// `file` under CARAVAN_TEST_DATA; where that is not set, prints the SKIPPED line for `what` and gives nothing.
std::optional<std::string> test_data(const std::string& file, const std::string& what);

/// SmolLM2-135M as a Hugging Face folder in f32, written once by Python below out/; where that cannot be, prints the
/// SKIPPED line for `what` and gives nothing.
std::optional<std::string> smollm2_folder(const std::string& what);

}  // namespace caravan::test
