// The device that a test of the engine runs on: the CPU, or with CARAVAN_TEST_DEVICE=cuda the GPU (main/test_main.cpp says
// SKIPPED ALL where there is none).
#pragma once

#include <vector>

#include "kernels/exec.h"

namespace caravan::test {

Device test_device();
/// A context of that device without threads; null context on the CPU. Lives as long as the program.
Exec test_exec();

/// The values at `values` of that device, as f32, and the other way.
std::vector<float> read_values(ConstPtr values, int64_t count);
void write_values(Ptr values, const std::vector<float>& from);

}  // namespace caravan::test
