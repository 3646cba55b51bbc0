// LoRA's narrow products on the GPU against the CPU twins.
#include "kernels/lora.h"

#include "cuda/cuda_test.h"
#include "kernels/dropout.h"

using namespace caravan;
using namespace caravan::test;

namespace {

template <typename T, typename W>
void compare(int64_t n, int64_t c, int64_t r, int parts, bool drops) {
  const std::string what = std::to_string(n) + " x " + std::to_string(c) + ", rank " + std::to_string(r) + ", " +
                           std::to_string(parts) + " parts" + (drops ? ", dropout" : "");
  TwinArray<T> x(n * c), scratch(n * c), dx(n * c);
  x.fill(1);
  dx.fill(2);
  std::vector<std::unique_ptr<TwinArray<W>>> a;
  std::vector<std::unique_ptr<TwinArray<T>>> u, du;
  std::vector<std::unique_ptr<TwinArray<uint32_t>>> bits;
  std::vector<std::unique_ptr<TwinArray<float>>> da;
  std::mt19937 random(7);
  std::vector<LoraPart> cpu, gpu;
  for (int p = 0; p < parts; ++p) {
    const auto seed = static_cast<uint32_t>(10 + 10 * p);
    a.push_back(std::make_unique<TwinArray<W>>(r * c));
    u.push_back(std::make_unique<TwinArray<T>>(n * r));
    du.push_back(std::make_unique<TwinArray<T>>(n * r));
    da.push_back(std::make_unique<TwinArray<float>>(r * c));
    bits.push_back(std::make_unique<TwinArray<uint32_t>>(n * kept_words(c)));
    a.back()->fill(seed);
    du.back()->fill(seed + 1);
    da.back()->fill(seed + 2);
    for (int64_t i = 0; i < bits.back()->count(); ++i) (*bits.back())[i] = random() | random();
    bits.back()->to_device();
    cpu.push_back({ConstPtr(a.back()->host()), drops ? bits.back()->host() : nullptr, u.back()->host()});
    gpu.push_back({ConstPtr(a.back()->device()), drops ? bits.back()->device() : nullptr, u.back()->device()});
  }
  constexpr float scale = 0.3f;
  lora_down_forward(cpu_exec(), cpu.data(), parts, x.host(), c, scratch.host(), n, c, r, scale);
  lora_down_forward(cuda_exec(), gpu.data(), parts, x.device(), c, scratch.device(), n, c, r, scale);
  const double tolerance = sizeof(T) == 4 ? 1e-5 : 1.0 / 128;
  for (int p = 0; p < parts; ++p) check_equal(*u[static_cast<size_t>(p)], tolerance, "u of " + what);
  for (int p = 0; p < parts; ++p) {
    const auto i = static_cast<size_t>(p);
    cpu[i].u = du[i]->host(), cpu[i].da = da[i]->host();
    gpu[i].u = du[i]->device(), gpu[i].da = da[i]->device();
  }
  lora_down_backward_weight(cpu_exec(), cpu.data(), parts, x.host(), c, scratch.host(), n, c, r);
  lora_down_backward_weight(cuda_exec(), gpu.data(), parts, x.device(), c, scratch.device(), n, c, r);
  for (int p = 0; p < parts; ++p) check_equal(*da[static_cast<size_t>(p)], 1e-5, "da of " + what);
  lora_down_backward_input(cpu_exec(), cpu.data(), parts, dx.host(), scratch.host(), n, c, r);
  lora_down_backward_input(cuda_exec(), gpu.data(), parts, dx.device(), scratch.device(), n, c, r);
  check_equal(dx, tolerance, "dx of " + what);
}

template <typename T, typename W>
void compare_shapes() {
  for (const bool drops : {false, true}) {
    for (const int parts : {1, 2, 3}) {
      compare<T, W>(1, 8, 8, parts, drops);
      compare<T, W>(63, 72, 16, parts, drops);
      compare<T, W>(130, 264, 64, parts, drops);
      compare<T, W>(777, 576, 64, parts, drops);
      compare<T, W>(1100, 1536, 32, parts, drops);
      compare<T, W>(300, 520, 136, parts, drops);
      compare<T, W>(65, 33, 7, parts, drops);  // no 16-byte rows
      compare<T, W>(65, 128, 12, parts, drops);
    }
  }
}

/// Rows that go on behind x with the u of every part, as widened activations lie, on the GPU against rows that lie close.
void compare_widened(int64_t n, int64_t c, int64_t r, int parts, bool drops) {
  const int64_t row = c + parts * r;
  const std::string what = std::to_string(n) + " x " + std::to_string(c) + ", rank " + std::to_string(r) + ", " +
                           std::to_string(parts) + " parts, widened" + (drops ? ", dropout" : "");
  TwinArray<bf16> x(n * c), wide(n * row), scratch(n * c), a(parts * r * c), u(parts * n * r);
  TwinArray<uint32_t> kept(n * kept_words(c));
  TwinArray<float> da(parts * r * c);
  x.fill(1), a.fill(2), da.fill(3);
  for (int64_t i = 0; i < n * row; ++i) wide[i] = i % row < c ? x[i / row * c + i % row] : bf16(0.0f);
  wide.to_device();
  for (int64_t i = 0; i < kept.count(); ++i) kept[i] = 0x5b6db6dbu >> i % 5;
  kept.to_device();
  std::vector<LoraPart> cpu, gpu;
  for (int p = 0; p < parts; ++p) {
    cpu.push_back({ConstPtr(a.host() + p * r * c), drops ? kept.host() : nullptr, u.host() + p * n * r});
    gpu.push_back({ConstPtr(a.device() + p * r * c), drops ? kept.device() : nullptr, wide.device() + c + p * r, row});
  }
  lora_down_forward(cpu_exec(), cpu.data(), parts, x.host(), c, scratch.host(), n, c, r, 0.5f);
  lora_down_forward(cuda_exec(), gpu.data(), parts, wide.device(), row, scratch.device(), n, c, r, 0.5f);
  for (int p = 0; p < parts; ++p) {
    for (int64_t i = 0; i < n * r; ++i) wide[i / r * row + c + p * r + i % r] = u[p * n * r + i];
  }
  check_equal(wide, 1.0 / 128, "u of " + what);
  // Its own u as gradient: any (N, R) will do.
  u.to_device();
  for (int p = 0; p < parts; ++p) {
    cpu[static_cast<size_t>(p)].da = da.host() + p * r * c;
    gpu[static_cast<size_t>(p)].da = da.device() + p * r * c;
    gpu[static_cast<size_t>(p)].u = u.device() + p * n * r;
    gpu[static_cast<size_t>(p)].u_row = r;
  }
  lora_down_backward_weight(cpu_exec(), cpu.data(), parts, x.host(), c, scratch.host(), n, c, r);
  lora_down_backward_weight(cuda_exec(), gpu.data(), parts, wide.device(), row, scratch.device(), n, c, r);
  check_equal(da, 1e-5, "da of " + what);
}

}  // namespace

TEST_CASE("LoRA's narrow products on the GPU equal the CPU's") {
  compare_shapes<bf16, bf16>();
  compare_shapes<bf16, float>();
  compare_shapes<float, float>();
}

TEST_CASE("rows that go on with u change nothing") {
  for (const bool drops : {false, true}) {
    for (const int parts : {1, 2, 3}) {
      compare_widened(1, 8, 8, parts, drops);
      compare_widened(130, 264, 64, parts, drops);
      compare_widened(777, 576, 16, parts, drops);
    }
  }
}
