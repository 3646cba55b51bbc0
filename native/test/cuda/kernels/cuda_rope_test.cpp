// RoPE on the GPU against the CPU twin: every element, both dtypes, forward and back.
#include "cuda/cuda_test.h"
#include "kernels/rope.h"

using namespace caravan;
using namespace caravan::test;

namespace {

template <typename T>
void compare(int64_t n, int64_t heads, int64_t head_dim, bool inverse) {
  const int64_t positions = n + 5, half = head_dim / 2;
  TwinArray<T> x(n * heads * head_dim);
  TwinArray<float> cos(positions * half), sin(positions * half);
  TwinArray<int32_t> position(n);
  x.fill(1);
  cos.fill(2);
  sin.fill(3);
  for (int64_t i = 0; i < n; ++i) position[i] = static_cast<int32_t>((i * 7) % positions);
  position.to_device();
  rope_apply(cpu_exec(), x.host(), cos.host(), sin.host(), position.host(), n, heads, head_dim, inverse);
  rope_apply(cuda_exec(), x.device(), cos.device(), sin.device(), position.device(), n, heads, head_dim, inverse);
  check_equal(x, sizeof(T) == 4 ? 1e-6 : 8e-3,
              std::to_string(n) + " x " + std::to_string(heads) + " x " + std::to_string(head_dim) +
                  (inverse ? ", inverse" : ""));
}

}  // namespace

TEST_CASE("RoPE on the GPU equals its CPU twin") {
  for (const bool inverse : {false, true}) {
    for (const int64_t n : {1, 3, 129}) {
      for (const int64_t heads : {1, 3, 32}) {
        for (const int64_t head_dim : {2, 32, 80, 128}) {
          compare<float>(n, heads, head_dim, inverse);
          compare<bf16>(n, heads, head_dim, inverse);
        }
      }
    }
  }
}
