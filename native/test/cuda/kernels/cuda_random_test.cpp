// Random initial values on the GPU: the CPU's, bit for bit where they are uniform.
#include "cuda/cuda_test.h"
#include "kernels/random.h"

using namespace caravan;
using namespace caravan::test;

namespace {

template <typename T>
void compare(int64_t count) {
  TwinArray<T> uniform(count), normal(count), constant(count);
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    const auto at = [&](TwinArray<T>& array) {
      return Ptr(exec.device == Device::cpu ? array.host() : array.device());
    };
    fill_uniform(exec, at(uniform), count, 0.3f, 5, 7);
    fill_normal(exec, at(normal), count, 0.02f, 5, 8);
    fill_constant(exec, at(constant), count, 1.25f);
  }
  check_equal(uniform, 0.0, "uniform");
  check_equal(normal, sizeof(T) == 4 ? 2e-7 : 4e-3, "normal");
  check_equal(constant, 0.0, "constant");
}

}  // namespace

TEST_CASE("random values on the GPU equal the CPU's") {
  for (const int64_t count : {1, 3, 4, 1021, 100000}) {
    compare<float>(count);
    compare<bf16>(count);
  }
}
