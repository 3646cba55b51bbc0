// A run for which memory ends while it loads or trains: it fails by name, and the process goes on.
#include <cstdlib>

#include "doctest/doctest.h"
#include "engine/model/device_buffer.h"
#include "engine/train/training_plan.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;

TEST_CASE(
    "a run that exceeds the memory there is fails as out of memory, names what would help, and leaves no buffer "
    "behind") {
  setenv("CARAVAN_MEMORY_LIMIT_MIB", "3", 1);  // read once, at the first buffer
  const TempFolder folder("limit");
  TrainOptions options = tiny_run(folder, Method::pesc);
  options.method.adapter_dim = 2048;
  REQUIRE(plan_training(options).memory.total > (int64_t{3} << 20));
  const Told told = train(options);
  CHECK(told.error_code == "out_of_memory");
  CHECK(told.error.find("lower microBatchSize or seqLen") != std::string::npos);
  CHECK(told.steps.empty());

  options.method.adapter_dim = 8;
  options.checkpoint_dir = folder.path("smaller");
  const Told smaller = train(options);
  CHECK(smaller.error == "");
  CHECK(smaller.result.reason == "finished");
  CHECK_NOTHROW(DeviceBuffer(Device::cpu, (size_t{3} << 20) - 4096));
  CHECK_THROWS_AS(DeviceBuffer(Device::cpu, (size_t{3} << 20) + 1), EngineError);
}
