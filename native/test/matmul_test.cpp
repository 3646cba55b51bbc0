// Products against their definition in fp64, element by element, for every operand type, size and option; and the
// promises about bits: thread count, tiling and the number of rows change none.
#include "kernels/matmul.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/matmul_reference.h"
#include "kernels/cpu/thread_pool.h"

using namespace caravan;
using cpu::Isa;

namespace {

/// An array of either type.
struct Array {
  DType dtype;
  std::vector<char> bytes;

  Array(DType type, int64_t count) : dtype(type), bytes(static_cast<size_t>(count) * size_of(type)) {}
  Array(DType type, int64_t count, uint32_t seed) : Array(type, count) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    for (int64_t i = 0; i < count; ++i) cpu::store_element(ptr(), i, uniform(random));
  }
  Ptr ptr() { return {bytes.data(), dtype}; }
  ConstPtr ptr() const { return {bytes.data(), dtype}; }
  int64_t count() const { return static_cast<int64_t>(bytes.size() / size_of(dtype)); }
  float operator[](int64_t i) const { return cpu::load_element(ptr(), i); }
};

/// NF4 of random codes and scales: every nibble and both kinds of scale occur.
struct RandomNf4 {
  std::vector<uint8_t> packed, absmax_u8;
  std::vector<float> absmax, absmax2;
  Nf4View view;

  RandomNf4(int64_t rows, int64_t cols, bool nested, uint32_t seed) {
    std::mt19937 random(seed);
    view.rows = rows;
    view.cols = cols;
    packed.resize(static_cast<size_t>((rows * cols + 1) / 2));
    for (uint8_t& byte : packed) byte = static_cast<uint8_t>(random());
    view.packed = packed.data();
    std::uniform_real_distribution<float> scale(0.25f, 1.0f);
    if (nested) {
      absmax_u8.resize(static_cast<size_t>(view.blocks()));
      for (uint8_t& code : absmax_u8) code = static_cast<uint8_t>(random());
      absmax2.resize(static_cast<size_t>((view.blocks() + nf4_nested_block - 1) / nf4_nested_block));
      for (float& value : absmax2) value = scale(random);
      view.absmax_u8 = absmax_u8.data();
      view.absmax2 = absmax2.data();
      view.offset = 0.6f;
    } else {
      absmax.resize(static_cast<size_t>(view.blocks()));
      for (float& value : absmax) value = scale(random);
      view.absmax = absmax.data();
    }
  }
};

/// fp32 sums of k products of values up to 1, then one rounding to the result's type.
double tolerance(DType dtype, int64_t k, double largest) {
  const double sum = 2e-7 * std::sqrt(static_cast<double>(k) + 1.0) * 4.0;
  return dtype == DType::f32 ? sum + 3e-7 * largest : sum + largest / 127.0;  // neighbours in bf16 are up to 2^-7 apart
}

void check_close(const Array& actual, const Array& expected, int64_t k, const std::string& what) {
  INFO(what);
  REQUIRE(actual.count() == expected.count());
  int64_t wrong = 0;
  for (int64_t i = 0; i < actual.count(); ++i) {
    const double limit = tolerance(actual.dtype, k, std::fabs(expected[i]));
    if (!(std::fabs(static_cast<double>(actual[i]) - expected[i]) <= limit)) {
      if (wrong++ == 0) FAIL_CHECK("element " << i << ": " << actual[i] << ", expected " << expected[i]);
    }
  }
  CHECK(wrong == 0);
}

Exec exec_with(const std::shared_ptr<ThreadPool>& pool) {
  Exec exec;
  exec.pool = pool.get();
  return exec;
}

std::vector<Isa> isas() {
  std::vector<Isa> found;
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512bf16}) {
    if (cpu::limit_cpu_isa(isa) == isa) {
      found.push_back(isa);
    } else {
      std::printf("SKIPPED products on %s: this processor lacks it\n", cpu::isa_name(isa));
    }
  }
  cpu::limit_cpu_isa(Isa::avx512bf16);
  return found;
}

constexpr DType dtypes[] = {DType::f32, DType::bf16};

struct Sizes {
  int64_t n, out, in;
};
// Below, at and above the widths of vectors, panels, blocks of NF4 and blocks of k; few rows and many.
constexpr Sizes sizes[] = {{1, 1, 1},     {1, 67, 64},    {3, 17, 63},   {2, 33, 192},  {8, 5, 130}, {9, 31, 65},
                           {17, 67, 128}, {67, 129, 321}, {13, 400, 70}, {250, 16, 64}, {5, 96, 642}};

}  // namespace

TEST_CASE("linear_forward and linear_backward_input equal their definition for every weight, type and option") {
  const auto pool = make_thread_pool(3);
  for (const Isa isa : isas()) {
    cpu::limit_cpu_isa(isa);
    for (const Sizes& s : sizes) {
      const RandomNf4 plain(s.out, s.in, false, 1), nested(s.out, s.in, true, 2);
      const Array f32(DType::f32, s.out * s.in, 3), b16(DType::bf16, s.out * s.in, 4), bias(DType::f32, s.out, 5);
      const Weight weights[] = {Weight::of(f32.ptr(), s.out, s.in), Weight::of(b16.ptr(), s.out, s.in),
                                Weight::of(plain.view), Weight::of(nested.view)};
      for (size_t w = 0; w < 4; ++w) {
        for (const DType dtype : dtypes) {
          for (const bool accumulate : {false, true}) {
            const std::string what = std::string(cpu::isa_name(isa)) + " n " + std::to_string(s.n) + " out " +
                                     std::to_string(s.out) + " in " + std::to_string(s.in) + " weight " +
                                     std::to_string(w) + (dtype == DType::f32 ? " f32" : " bf16") +
                                     (accumulate ? " accumulate" : "");
            const float scale = accumulate ? 0.5f : 1.0f;
            const Array x(dtype, s.n * s.in, 6), dy(dtype, s.n * s.out, 7);
            Array y(dtype, s.n * s.out, 8), dx(dtype, s.n * s.in, 9);
            Array y_expected = y, dx_expected = dx;
            const float* b = accumulate ? nullptr : bias.ptr().as<float>();
            linear_forward(exec_with(pool), y.ptr(), x.ptr(), weights[w], b, s.n, scale, accumulate);
            cpu::reference::linear_forward(y_expected.ptr(), x.ptr(), weights[w], b, s.n, scale, accumulate);
            check_close(y, y_expected, s.in, "forward " + what);
            linear_backward_input(exec_with(pool), dx.ptr(), dy.ptr(), weights[w], s.n, scale, accumulate);
            cpu::reference::linear_backward_input(dx_expected.ptr(), dy.ptr(), weights[w], s.n, scale, accumulate);
            check_close(dx, dx_expected, s.out, "backward " + what);
          }
        }
      }
    }
  }
  cpu::limit_cpu_isa(Isa::avx512bf16);
}

TEST_CASE("activations of one type may be written as the other") {
  const auto pool = make_thread_pool(2);
  const Array x(DType::bf16, 19 * 70, 1), w(DType::bf16, 33 * 70, 2);
  Array y(DType::f32, 19 * 33), expected(DType::f32, 19 * 33);
  linear_forward(exec_with(pool), y.ptr(), x.ptr(), Weight::of(w.ptr(), 33, 70), nullptr, 19, 1.0f, false);
  cpu::reference::linear_forward(expected.ptr(), x.ptr(), Weight::of(w.ptr(), 33, 70), nullptr, 19, 1.0f, false);
  check_close(y, expected, 70, "bf16 to f32");
}

TEST_CASE("linear_backward_weight and bias_backward add the sums over rows") {
  const auto pool = make_thread_pool(3);
  for (const Isa isa : isas()) {
    cpu::limit_cpu_isa(isa);
    for (const Sizes& s : sizes) {
      for (const DType dtype : dtypes) {
        for (const DType weight_dtype : dtypes) {
          const Array dy(dtype, s.n * s.out, 1), x(dtype, s.n * s.in, 2);
          Array dw(weight_dtype, s.out * s.in, 3), expected = dw;
          linear_backward_weight(exec_with(pool), dw.ptr(), dy.ptr(), x.ptr(), s.n, s.out, s.in, 0.25f);
          cpu::reference::linear_backward_weight(expected.ptr(), dy.ptr(), x.ptr(), s.n, s.out, s.in, 0.25f);
          check_close(dw, expected, s.n, "dw " + std::to_string(s.n));
        }
        const Array dy(dtype, s.n * s.out, 1);
        Array dbias(DType::f32, s.out, 4), expected = dbias;
        bias_backward(exec_with(pool), dbias.ptr().as<float>(), dy.ptr(), s.n, s.out);
        for (int64_t o = 0; o < s.out; ++o) {
          double sum = expected[o];
          for (int64_t row = 0; row < s.n; ++row) sum += dy[row * s.out + o];
          cpu::store_element(expected.ptr(), o, static_cast<float>(sum));
        }
        check_close(dbias, expected, s.n, "dbias");
      }
    }
  }
  cpu::limit_cpu_isa(Isa::avx512bf16);
}

TEST_CASE("grouped products treat each group as a product of its own, empty groups included") {
  const auto pool = make_thread_pool(3);
  constexpr int64_t out = 35, in = 70, groups = 5;
  for (const std::vector<int32_t>& offsets :
       {std::vector<int32_t>{0, 0, 17, 20, 20, 103}, {0, 1, 1, 2, 2, 2}, {0, 0, 0, 64, 64, 64}, {0, 0, 0, 0, 0, 0}}) {
    const int64_t n = offsets.back();
    for (const DType dtype : dtypes) {
      const Array x(dtype, n * in, 1), dy(dtype, n * out, 2), w(dtype, groups * out * in, 3);
      Array y(dtype, n * out, 4), dx(dtype, n * in, 5), dw(DType::f32, groups * out * in, 6);
      Array y_expected = y, dx_expected = dx, dw_expected = dw;
      const Exec exec = exec_with(pool);
      grouped_linear_forward(exec, y.ptr(), x.ptr(), w.ptr(), offsets.data(), groups, n, out, in, 2.0f, true);
      grouped_linear_backward_input(exec, dx.ptr(), dy.ptr(), w.ptr(), offsets.data(), groups, n, out, in, 2.0f, false);
      grouped_linear_backward_weight(exec, dw.ptr(), dy.ptr(), x.ptr(), offsets.data(), groups, n, out, in, 2.0f);
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t first = offsets[static_cast<size_t>(g)], rows = offsets[static_cast<size_t>(g) + 1] - first;
        const Weight weight = Weight::of(w.ptr().at(g * out * in), out, in);
        cpu::reference::linear_forward(y_expected.ptr().at(first * out), x.ptr().at(first * in), weight, nullptr, rows,
                                       2.0f, true);
        cpu::reference::linear_backward_input(dx_expected.ptr().at(first * in), dy.ptr().at(first * out), weight, rows,
                                              2.0f, false);
        cpu::reference::linear_backward_weight(dw_expected.ptr().at(g * out * in), dy.ptr().at(first * out),
                                               x.ptr().at(first * in), rows, out, in, 2.0f);
      }
      check_close(y, y_expected, 2 * in, "grouped forward");
      check_close(dx, dx_expected, 2 * out, "grouped backward input");
      check_close(dw, dw_expected, n, "grouped backward weight");
    }
  }
}

TEST_CASE("no bit depends on the thread count") {
  for (const DType dtype : dtypes) {
    for (const int64_t n : {int64_t{3}, int64_t{301}}) {
      constexpr int64_t out = 530, in = 400;
      const Array x(dtype, n * in, 1), dy(dtype, n * out, 2);
      const RandomNf4 nf4(out, in, true, 3);
      std::vector<char> first;
      for (const int threads : {1, 2, 3, 7}) {
        const auto pool = make_thread_pool(threads);
        Array y(dtype, n * out), dx(dtype, n * in), dw(DType::f32, out * in);
        linear_forward(exec_with(pool), y.ptr(), x.ptr(), Weight::of(nf4.view), nullptr, n, 1.0f, false);
        linear_backward_input(exec_with(pool), dx.ptr(), dy.ptr(), Weight::of(nf4.view), n, 1.0f, false);
        linear_backward_weight(exec_with(pool), dw.ptr(), dy.ptr(), x.ptr(), n, out, in, 1.0f);
        std::vector<char> all = y.bytes;
        all.insert(all.end(), dx.bytes.begin(), dx.bytes.end());
        all.insert(all.end(), dw.bytes.begin(), dw.bytes.end());
        if (first.empty()) first = all;
        CHECK(all == first);
      }
    }
  }
}

TEST_CASE("a row's bits do not depend on the other rows, on either side of the border between the paths") {
  const auto pool = make_thread_pool(2);
  constexpr int64_t out = 197, in = 700, n = 300;
  const RandomNf4 nf4(out, in, true, 1);
  const Array f32(DType::f32, out * in, 2), b16(DType::bf16, out * in, 3);
  for (const DType dtype : dtypes) {
    const Array x(dtype, n * in, 4);
    for (const Weight& w : {Weight::of(f32.ptr(), out, in), Weight::of(b16.ptr(), out, in), Weight::of(nf4.view)}) {
      Array many(dtype, n * out), nine(dtype, 9 * out), eight(dtype, 8 * out), one(dtype, out);
      linear_forward(exec_with(pool), many.ptr(), x.ptr(), w, nullptr, n, 1.0f, false);
      linear_forward(exec_with(pool), nine.ptr(), x.ptr(), w, nullptr, 9, 1.0f, false);
      linear_forward(exec_with(pool), eight.ptr(), x.ptr(), w, nullptr, 8, 1.0f, false);
      CHECK(std::memcmp(many.bytes.data(), nine.bytes.data(), nine.bytes.size()) == 0);
      for (int64_t row = 0; row < 8; ++row) {
        linear_forward(exec_with(pool), one.ptr(), x.ptr().at(row * in), w, nullptr, 1, 1.0f, false);
        CHECK(std::memcmp(eight.ptr().at(row * out).data, one.bytes.data(), one.bytes.size()) == 0);
      }
    }
  }
}

TEST_CASE("a product over nothing is zero, plus bias") {
  const Exec exec;
  const float bias[] = {1.0f, -2.0f};
  std::vector<float> y = {5.0f, 5.0f, 5.0f, 5.0f};
  linear_forward(exec, y.data(), static_cast<const float*>(nullptr),
                 Weight::of(static_cast<const float*>(nullptr), 2, 0), bias, 2, 1.0f, false);
  CHECK(y == std::vector<float>{1.0f, -2.0f, 1.0f, -2.0f});
  linear_forward(exec, y.data(), static_cast<const float*>(nullptr),
                 Weight::of(static_cast<const float*>(nullptr), 2, 0), bias, 0, 1.0f, false);
}

TEST_CASE("bf16 products hold over several tiles and blocks of an odd k, where rows share lines of a cache too") {
  const auto pool = make_thread_pool(3);
  constexpr int64_t n = 251, out = 397;
  for (const Isa isa : isas()) {
    cpu::limit_cpu_isa(isa);
    for (const int64_t in : {645, 1024, 1281}) {
      const Array x(DType::bf16, n * in, 1), dy(DType::bf16, n * out, 2), b16(DType::bf16, out * in, 3),
          f32(DType::f32, out * in, 4);
      Array y(DType::bf16, n * out), expected(DType::bf16, n * out), y32(DType::f32, n * out),
          expected32(DType::f32, n * out), dx(DType::bf16, n * in), dx_expected(DType::bf16, n * in),
          dw(DType::f32, out * in), dw_expected(DType::f32, out * in);
      const std::string what = std::string(cpu::isa_name(isa)) + " k " + std::to_string(in);
      linear_forward(exec_with(pool), y.ptr(), x.ptr(), Weight::of(b16.ptr(), out, in), nullptr, n, 1.0f, false);
      cpu::reference::linear_forward(expected.ptr(), x.ptr(), Weight::of(b16.ptr(), out, in), nullptr, n, 1.0f, false);
      check_close(y, expected, in, what);
      linear_forward(exec_with(pool), y32.ptr(), x.ptr(), Weight::of(f32.ptr(), out, in), nullptr, n, 1.0f, false);
      cpu::reference::linear_forward(expected32.ptr(), x.ptr(), Weight::of(f32.ptr(), out, in), nullptr, n, 1.0f,
                                     false);
      check_close(y32, expected32, in, what + " to f32");
      linear_backward_input(exec_with(pool), dx.ptr(), dy.ptr(), Weight::of(f32.ptr(), out, in), n, 1.0f, false);
      cpu::reference::linear_backward_input(dx_expected.ptr(), dy.ptr(), Weight::of(f32.ptr(), out, in), n, 1.0f,
                                            false);
      check_close(dx, dx_expected, out, what + " input");
      linear_backward_weight(exec_with(pool), dw.ptr(), dy.ptr(), x.ptr(), n, out, in, 1.0f);
      cpu::reference::linear_backward_weight(dw_expected.ptr(), dy.ptr(), x.ptr(), n, out, in, 1.0f);
      check_close(dw, dw_expected, n, what + " weight");
    }
  }
  cpu::limit_cpu_isa(Isa::avx512bf16);
}

TEST_CASE("a NaN or an infinity in one row stays in that row") {
  const Exec exec;
  Array x(DType::f32, 20 * 70, 1);
  const Array w(DType::f32, 33 * 70, 2);
  cpu::store_element(x.ptr(), 3 * 70 + 5, NAN);
  Array y(DType::f32, 20 * 33);
  linear_forward(exec, y.ptr(), x.ptr(), Weight::of(w.ptr(), 33, 70), nullptr, 20, 1.0f, false);
  for (int64_t i = 0; i < y.count(); ++i) CHECK(std::isnan(y[i]) == (i / 33 == 3));
}

#ifndef CARAVAN_CUDA
TEST_CASE("the device cuda is refused by a build without it") {
  Exec exec;
  exec.device = Device::cuda;
  float value = 0.0f;
  try {
    linear_forward(exec, &value, &value, Weight::of(&value, 1, 1), nullptr, 1, 1.0f, false);
    FAIL("accepted");
  } catch (const EngineError& error) {
    CHECK(error.code == "cuda_unavailable");
    CHECK(std::string(error.what()).find("linear_forward") != std::string::npos);
  }
}
#endif
