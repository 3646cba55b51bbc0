// NF4 on the GPU against its CPU twin: codes, scales and offset byte for byte, and the values read back bit for bit.
#include <cstring>

#include "cuda/cuda_test.h"
#include "kernels/nf4.h"

using namespace caravan;
using namespace caravan::test;

namespace {

template <typename T>
void fill_weight(TwinArray<T>& weight, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  for (int64_t i = 0; i < weight.count(); ++i) {
    // Rows of different size, some blocks of zeros, some outliers.
    const float scale = std::pow(10.0f, static_cast<float>(i / 640 % 4) - 2.0f);
    weight[i] = T(i / 64 % 11 == 5 ? 0.0f : normal(random) * scale * (i % 1013 == 0 ? 40.0f : 1.0f));
  }
  weight.to_device();
}

/// One weight quantised on both devices into one buffer each.
template <typename T>
struct Quantised {
  TwinArray<char> memory;
  Nf4View on_cpu, on_gpu;

  Quantised(TwinArray<T>& weight, int64_t rows, int64_t cols, bool double_quant)
      : memory(bytes_of(rows, cols, double_quant)) {
    memory.to_device();  // also the bytes between the arrays are equal
    Nf4Arrays arrays;
    nf4_place(arrays, memory.host(), rows, cols, double_quant);
    on_cpu = nf4_quantize_into(cpu_exec(), arrays, weight.host(), rows, cols);
    nf4_place(arrays, memory.device(), rows, cols, double_quant);
    on_gpu = nf4_quantize_into(cuda_exec(), arrays, weight.device(), rows, cols);
  }
  static int64_t bytes_of(int64_t rows, int64_t cols, bool double_quant) {
    Nf4Arrays arrays;
    return static_cast<int64_t>(nf4_place(arrays, nullptr, rows, cols, double_quant));
  }
};

template <typename T>
void compare(int64_t rows, int64_t cols, bool double_quant) {
  const std::string what = std::to_string(rows) + " x " + std::to_string(cols) + (double_quant ? ", double" : "");
  TwinArray<T> weight(rows * cols);
  fill_weight(weight, static_cast<uint32_t>(rows * 31 + cols));
  Quantised<T> quantised(weight, rows, cols, double_quant);
  const std::vector<char> found = quantised.memory.from_device();
  int64_t wrong = 0;
  for (size_t i = 0; i < found.size(); ++i) wrong += found[i] != quantised.memory.host()[i];
  INFO(what);
  CHECK(wrong == 0);
  CHECK(std::memcmp(&quantised.on_gpu.offset, &quantised.on_cpu.offset, sizeof(float)) == 0);

  const Nf4Storage storage = nf4_quantize(cpu_exec(), weight.host(), rows, cols, double_quant);
  CHECK(storage.offset == quantised.on_cpu.offset);
  CHECK(std::memcmp(storage.packed.data(), quantised.on_cpu.packed, storage.packed.size()) == 0);

  TwinArray<float> wide(rows * cols);
  TwinArray<bf16> narrow(rows * cols);
  nf4_dequantize(cpu_exec(), wide.host(), quantised.on_cpu);
  nf4_dequantize(cuda_exec(), wide.device(), quantised.on_gpu);
  nf4_dequantize(cpu_exec(), narrow.host(), quantised.on_cpu);
  nf4_dequantize(cuda_exec(), narrow.device(), quantised.on_gpu);
  check_equal(wide, 0.0, "f32 " + what);
  check_equal(narrow, 0.0, "bf16 " + what);
  if (rows * cols < 2) return;
  nf4_dequantize(cuda_exec(), narrow.device() + 1,
                 Nf4View{quantised.on_gpu.packed, quantised.on_gpu.absmax, quantised.on_gpu.absmax_u8,
                         quantised.on_gpu.absmax2, quantised.on_gpu.offset, 1, rows * cols - 1});
  for (int64_t i = rows * cols - 1; i > 0; --i) narrow[i] = narrow[i - 1];
  check_equal(narrow, 0.0, "unaligned bf16 " + what);
}

}  // namespace

TEST_CASE("NF4 on the GPU: the CPU's bytes and values") {
  for (const bool double_quant : {false, true}) {
    for (const auto& [rows, cols] : std::initializer_list<std::pair<int64_t, int64_t>>{
             {1, 1}, {1, 2}, {1, 63}, {3, 7}, {1, 64}, {5, 65}, {64, 64}, {129, 200}, {257, 1024}, {1000, 3000}}) {
      compare<float>(rows, cols, double_quant);
      compare<bf16>(rows, cols, double_quant);
    }
  }
}

TEST_CASE("values on and beside every threshold take the CPU's codes, and so do those that are not numbers") {
  std::vector<float> values;
  for (const float threshold : nf4_thresholds) {
    for (const float absmax : {1.0f, 1.3f, 0.0173f}) {
      const float around = threshold * absmax;
      for (const float x : {std::nextafter(around, -10.0f), around, std::nextafter(around, 10.0f)}) {
        std::vector<float> block(64, x);
        block[0] = absmax;
        values.insert(values.end(), block.begin(), block.end());
      }
    }
  }
  std::vector<float> odd(64, 0.5f);
  odd[1] = NAN;
  odd[2] = INFINITY;
  odd[3] = -0.0f;
  values.insert(values.end(), odd.begin(), odd.end());
  std::vector<float> tiny(64, 1e-40f);
  values.insert(values.end(), tiny.begin(), tiny.end());
  TwinArray<float> weight(static_cast<int64_t>(values.size()));
  for (int64_t i = 0; i < weight.count(); ++i) weight[i] = values[static_cast<size_t>(i)];
  weight.to_device();
  Quantised<float> quantised(weight, 1, weight.count(), false);
  const std::vector<char> found = quantised.memory.from_device();
  CHECK(std::memcmp(found.data(), quantised.memory.host(), found.size()) == 0);
}
