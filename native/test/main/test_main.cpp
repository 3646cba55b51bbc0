// main of every test: doctest's, and where the GPU is asked for (CARAVAN_TEST_DEVICE=cuda) but cannot be used, SKIPPED ALL
// with the reason.
#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "doctest/doctest.h"
#include "kernels/cuda_context.h"

int main(int argc, char** argv) {
  const char* device = std::getenv("CARAVAN_TEST_DEVICE");
  if (device != nullptr && std::string_view(device) == "cuda") {
    try {
      caravan::make_cuda_context();
    } catch (const caravan::EngineError& error) {
      std::printf("SKIPPED ALL %s: %s\n", argv[0], error.what());
      return 0;
    }
  }
  return doctest::Context(argc, argv).run();
}
