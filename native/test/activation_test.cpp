// Element-wise functions against <cmath> in fp64, over the whole range of inputs and at every length around a vector.
#include "kernels/activation.h"

#include <cmath>
#include <limits>
#include <numbers>
#include <random>
#include <string>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/thread_pool.h"

using namespace caravan;
using cpu::Isa;

namespace {

struct Array {
  DType dtype;
  std::vector<char> bytes;

  Array(DType type, int64_t count) : dtype(type), bytes(static_cast<size_t>(count) * size_of(type)) {}
  Array(DType type, int64_t count, uint32_t seed, float spread) : Array(type, count) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-spread, spread);
    for (int64_t i = 0; i < count; ++i) cpu::store_element(ptr(), i, uniform(random));
  }
  Ptr ptr() { return {bytes.data(), dtype}; }
  ConstPtr ptr() const { return {bytes.data(), dtype}; }
  int64_t count() const { return static_cast<int64_t>(bytes.size() / size_of(dtype)); }
  float operator[](int64_t i) const { return cpu::load_element(ptr(), i); }
};

double silu(double x) { return x / (1.0 + std::exp(-x)); }
double dsilu(double x) {
  const double s = 1.0 / (1.0 + std::exp(-x));
  return s * (1.0 + x * (1.0 - s));
}
double cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }
double density(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::numbers::pi); }
double gelu(double x) { return x * cdf(x); }
double dgelu(double x) { return cdf(x) + x * density(x); }

template <typename F>
void check_each(const Array& actual, double relative, const std::string& what, F&& expected) {
  INFO(what);
  int64_t wrong = 0;
  for (int64_t i = 0; i < actual.count(); ++i) {
    const double e = expected(i);
    const double limit =
        relative * std::max(1.0, std::fabs(e)) + (actual.dtype == DType::bf16 ? std::fabs(e) / 127.0 : 0.0);
    if (!(std::fabs(actual[i] - e) <= limit) && wrong++ == 0) {
      FAIL_CHECK("element " << i << ": " << actual[i] << ", expected " << e);
    }
  }
  CHECK(wrong == 0);
}

std::vector<Isa> isas() {
  std::vector<Isa> found;
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512bf16}) {
    if (cpu::limit_cpu_isa(isa) == isa) found.push_back(isa);
  }
  cpu::limit_cpu_isa(Isa::avx512bf16);
  return found;
}

constexpr int64_t lengths[] = {1, 3, 8, 15, 17, 67, 5000};
constexpr DType dtypes[] = {DType::f32, DType::bf16};

}  // namespace

TEST_CASE("SwiGLU and GELU, forward and backward, equal their formulas") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for (const Isa isa : isas()) {
    cpu::limit_cpu_isa(isa);
    for (const DType dtype : dtypes) {
      for (const int64_t count : lengths) {
        for (const float spread : {1.0f, 12.0f}) {
          const std::string what = std::string(cpu::isa_name(isa)) + " count " + std::to_string(count);
          const Array x(dtype, count, 1, spread), u(dtype, count, 2, 1.0f), d(dtype, count, 3, 1.0f);
          Array out(dtype, count), dx(dtype, count), du(dtype, count);
          swiglu_forward(exec, out.ptr(), x.ptr(), u.ptr(), count);
          check_each(out, 4e-7, what, [&](int64_t i) { return silu(x[i]) * u[i]; });
          swiglu_backward(exec, dx.ptr(), du.ptr(), d.ptr(), x.ptr(), u.ptr(), count);
          check_each(dx, 1e-6, what, [&](int64_t i) { return static_cast<double>(d[i]) * u[i] * dsilu(x[i]); });
          check_each(du, 4e-7, what, [&](int64_t i) { return d[i] * silu(x[i]); });
          gelu_forward(exec, out.ptr(), x.ptr(), count);
          check_each(out, 1e-6, what, [&](int64_t i) { return gelu(x[i]); });
          gelu_backward(exec, dx.ptr(), d.ptr(), x.ptr(), count);
          check_each(dx, 1e-6, what, [&](int64_t i) { return d[i] * dgelu(x[i]); });
        }
      }
    }
  }
  cpu::limit_cpu_isa(Isa::avx512bf16);
}

TEST_CASE("gradients may be written over their inputs") {
  const Array x(DType::f32, 21, 1, 3.0f), u(DType::f32, 21, 2, 1.0f), d(DType::f32, 21, 3, 1.0f);
  Array dx(DType::f32, 21), du(DType::f32, 21), gate = x, up = u, dout = d;
  swiglu_backward({}, dx.ptr(), du.ptr(), d.ptr(), x.ptr(), u.ptr(), 21);
  swiglu_backward({}, gate.ptr(), up.ptr(), d.ptr(), gate.ptr(), up.ptr(), 21);
  CHECK(gate.bytes == dx.bytes);
  CHECK(up.bytes == du.bytes);
  gelu_backward({}, dx.ptr(), d.ptr(), x.ptr(), 21);
  gelu_backward({}, dout.ptr(), dout.ptr(), x.ptr(), 21);
  CHECK(dout.bytes == dx.bytes);
}

TEST_CASE("the formulas' gradients are those of finite differences") {
  for (double x = -6.0; x <= 6.0; x += 0.37) {
    constexpr double h = 1e-5;
    CHECK(dgelu(x) == doctest::Approx((gelu(x + h) - gelu(x - h)) / (2 * h)).epsilon(1e-7));
    CHECK(dsilu(x) == doctest::Approx((silu(x + h) - silu(x - h)) / (2 * h)).epsilon(1e-7));
  }
}

TEST_CASE("extreme inputs keep their meaning") {
  for (const Isa isa : isas()) {
    cpu::limit_cpu_isa(isa);
    constexpr float inf = std::numeric_limits<float>::infinity();
    const std::vector<float> x = {-1e4f, -90.0f, -0.0f, 0.0f, 90.0f, 1e4f, NAN, inf, 1e-30f}, one(9, 1.0f);
    std::vector<float> out(9);
    swiglu_forward({}, out.data(), x.data(), one.data(), 9);
    CHECK(std::fabs(out[0]) <= 1e-30f);
    CHECK(std::fabs(out[1]) <= 1e-30f);
    CHECK(out[2] == 0.0f);
    CHECK(out[3] == 0.0f);
    CHECK(out[4] == 90.0f);
    CHECK(out[5] == 1e4f);
    CHECK(std::isnan(out[6]));
    CHECK(out[7] == inf);
    CHECK(out[8] == doctest::Approx(0.5e-30f));
    gelu_forward({}, out.data(), x.data(), 9);
    CHECK(std::fabs(out[0]) <= 1e-3f);
    CHECK(out[5] == 1e4f);
    CHECK(std::isnan(out[6]));
    CHECK(out[8] == doctest::Approx(0.5e-30f));
  }
  cpu::limit_cpu_isa(Isa::avx512bf16);
}

TEST_CASE("add_inplace, convert and fill_zero work across types") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for (const DType from : dtypes) {
    for (const DType to : dtypes) {
      for (const int64_t count : {int64_t{1}, int64_t{17}, int64_t{9001}}) {
        const Array x(from, count, 1, 4.0f);
        const Array y0(to, count, 2, 4.0f);
        Array y = y0;
        add_inplace(exec, y.ptr(), x.ptr(), count);
        for (int64_t i = 0; i < count; ++i) REQUIRE(y[i] == cpu::round_to(to, y0[i] + x[i]));
        convert(exec, y.ptr(), x.ptr(), count);
        for (int64_t i = 0; i < count; ++i) REQUIRE(y[i] == cpu::round_to(to, x[i]));
        fill_zero(exec, y.ptr(), count);
        for (int64_t i = 0; i < count; ++i) REQUIRE(y[i] == 0.0f);
      }
    }
  }
}
