#include "kernels/random.h"

#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"
#include "kernels/philox.h"

namespace caravan::cuda {

namespace {

enum class Draw { uniform, normal, constant };

/// One thread a group of four elements, as the CPU twin draws them.
template <typename T, Draw draw>
__global__ void fill_kernel(T* values, int64_t count, float parameter_of_draw, uint32_t seed, uint32_t counter) {
  const int64_t group = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (4 * group >= count) return;
  float four[4];
  if constexpr (draw == Draw::constant) {
    for (float& value : four) value = parameter_of_draw;
  } else {
    const Philox4 bits = philox(seed, 0, static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), counter, 0);
    if constexpr (draw == Draw::uniform) {
      for (int i = 0; i < 4; ++i) {
        four[i] = __fmul_rn(parameter_of_draw, __fsub_rn(__fmul_rn(2.0f, uniform01(bits.word[i])), 1.0f));
      }
    } else {
      for (int i = 0; i < 4; i += 2) {
        const double u = (static_cast<double>(bits.word[i] >> 8) + 1.0) * 0x1p-24;
        double sine, cosine;
        sincospi(2.0 * static_cast<double>(uniform01(bits.word[i + 1])), &sine, &cosine);
        const double radius = static_cast<double>(parameter_of_draw) * sqrt(-2.0 * log(u));
        four[i] = static_cast<float>(radius * cosine);
        four[i + 1] = static_cast<float>(radius * sine);
      }
    }
  }
  for (int i = 0; i < 4 && 4 * group + i < count; ++i) values[4 * group + i] = T(four[i]);
}

template <Draw draw>
void fill(const Exec& exec, Ptr values, int64_t count, float parameter_of_draw, uint32_t seed, uint32_t parameter) {
  if (count == 0) return;
  constexpr int64_t threads = 256;
  const unsigned blocks = static_cast<unsigned>(((count + 3) / 4 + threads - 1) / threads);
  const uint32_t counter = static_cast<uint32_t>(PhiloxUse::init) | parameter;
  dispatch(values.dtype, [&]<typename T>() {
    fill_kernel<T, draw>
        <<<blocks, threads, 0, stream_of(exec)>>>(values.as<T>(), count, parameter_of_draw, seed, counter);
  });
  check_launch("fill");
}

}  // namespace

void fill_uniform(const Exec& exec, Ptr values, int64_t count, float bound, uint32_t seed, uint32_t parameter) {
  fill<Draw::uniform>(exec, values, count, bound, seed, parameter);
}

void fill_normal(const Exec& exec, Ptr values, int64_t count, float deviation, uint32_t seed, uint32_t parameter) {
  fill<Draw::normal>(exec, values, count, deviation, seed, parameter);
}

void fill_constant(const Exec& exec, Ptr values, int64_t count, float value) {
  fill<Draw::constant>(exec, values, count, value, 0, 0);
}

}  // namespace caravan::cuda
