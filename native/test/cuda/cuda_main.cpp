// main of the tests in this folder: says SKIPPED ALL, with the reason, where no CUDA device can be used.
#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>

#include "cuda/cuda_test.h"
#include "doctest/doctest.h"

namespace {

std::shared_ptr<caravan::cuda::Context> context;

}  // namespace

namespace caravan::test {

Exec cuda_exec() {
  Exec exec;
  exec.device = Device::cuda;
  exec.cuda = context.get();
  return exec;
}

}  // namespace caravan::test

int main(int argc, char** argv) {
  try {
    context = caravan::make_cuda_context();
  } catch (const caravan::EngineError& error) {
    std::printf("SKIPPED ALL %s: %s\n", argv[0], error.what());
    return 0;
  }
  const int result = doctest::Context(argc, argv).run();
  context.reset();
  return result;
}
