// Embedding rows and cross entropy against their definitions in fp64, every element.
#include "kernels/classifier.h"

#include "kernels/cpu/thread_pool.h"
#include "typed_array.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr DType dtypes[] = {DType::f32, DType::bf16};

std::vector<int32_t> make_ids(int64_t n, int64_t v, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids;
  // Skewed, so that some ids come often and some never.
  for (int64_t t = 0; t < n; ++t) {
    const uint32_t draw = static_cast<uint32_t>(random()) % static_cast<uint32_t>(v);
    ids.push_back(static_cast<int32_t>(draw % 3 == 0 ? draw : draw % 2));
  }
  if (v == 1) std::fill(ids.begin(), ids.end(), 0);
  return ids;
}

double log_sum_exp(const float* row, int64_t v) {
  double largest = -INFINITY, sum = 0.0;
  for (int64_t i = 0; i < v; ++i) largest = std::max(largest, static_cast<double>(row[i]));
  for (int64_t i = 0; i < v; ++i) sum += std::exp(row[i] - largest);
  return largest + std::log(sum);
}

}  // namespace

TEST_CASE("embedding rows go out as they are and gradients come back summed by id") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for (const DType table_dtype : dtypes) {
    for (const DType dtype : dtypes) {
      for (const int64_t n : {1, 9, 67, 301}) {
        for (const int64_t c : {1, 17, 40}) {
          for (const int64_t v : {1, 2, 61}) {
            const std::vector<int32_t> ids = make_ids(n, v, 7);
            const TypedArray table(table_dtype, v * c, 1), dout(dtype, n * c, 2);
            TypedArray out(dtype, n * c);
            embedding_forward(exec, out.ptr(), table.ptr(), ids.data(), n, c);
            for (int64_t i = 0; i < n * c; ++i) {
              REQUIRE(out[i] == cpu::round_to(dtype, table[ids[static_cast<size_t>(i / c)] * c + i % c]));
            }
            const TypedArray before(DType::f32, v * c, 3);
            TypedArray dtable = before, single = before;
            embedding_backward(exec, dtable.ptr(), dout.ptr(), ids.data(), n, c, v);
            embedding_backward({}, single.ptr(), dout.ptr(), ids.data(), n, c, v);
            REQUIRE(dtable.bytes == single.bytes);
            check_elements(
                "dtable", v * c, [&](int64_t i) { return dtable[i]; },
                [&](int64_t i) {
                  double sum = before[i];
                  for (int64_t t = 0; t < n; ++t) {
                    if (ids[static_cast<size_t>(t)] == i / c) sum += dout[t * c + i % c];
                  }
                  return sum;
                },
                rounding_limit(DType::f32, static_cast<double>(n)));
          }
        }
      }
    }
  }
}

TEST_CASE("rows are gathered and added back, and no others touched") {
  const int64_t n = 67, c = 19;
  std::vector<int32_t> rows;
  for (int32_t t = 1; t < n; t += 3) rows.push_back(t);
  const int64_t m = static_cast<int64_t>(rows.size());
  for (const DType dtype : dtypes) {
    const TypedArray x(dtype, n * c, 1), in(dtype, m * c, 2);
    TypedArray out(dtype, m * c), sum = x;
    gather_rows({}, out.ptr(), x.ptr(), rows.data(), m, c);
    for (int64_t i = 0; i < m * c; ++i) REQUIRE(out[i] == x[rows[static_cast<size_t>(i / c)] * c + i % c]);
    scatter_rows_add({}, sum.ptr(), in.ptr(), rows.data(), m, c);
    for (int64_t i = 0; i < n * c; ++i) {
      const bool added = (i / c) % 3 == 1;
      REQUIRE(sum[i] == (added ? cpu::round_to(dtype, x[i] + in[i / c / 3 * c + i % c]) : x[i]));
    }
  }
}

TEST_CASE("cross entropy and its gradient equal their definition, whatever the size and spread of the logits") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for (const int64_t m : {1, 5, 67}) {
    for (const int64_t v : {1, 2, 7, 61, 1003, 32001}) {
      if (m * v > 400000) continue;
      for (const float spread : {0.0f, 1.0f, 30.0f, 3000.0f}) {
        const TypedArray logits(DType::f32, m * v, 1, spread);
        std::vector<int32_t> targets;
        for (int64_t r = 0; r < m; ++r) targets.push_back(r % 4 == 3 ? -100 : static_cast<int32_t>(r * 37 % v));
        const float scale = 1.0f / 13.0f;
        TypedArray gradient = logits, untouched = logits;
        std::vector<float> losses(static_cast<size_t>(m), -1.0f), again(losses);
        cross_entropy(exec, losses.data(), gradient.floats(), targets.data(), m, v, true, scale);
        cross_entropy(exec, again.data(), untouched.floats(), targets.data(), m, v, false, scale);
        REQUIRE(losses == again);
        REQUIRE(untouched.bytes == logits.bytes);
        std::vector<double> lse;
        for (int64_t r = 0; r < m; ++r) {
          lse.push_back(log_sum_exp(logits.floats() + r * v, v));
          const int32_t target = targets[static_cast<size_t>(r)];
          const double expected = target < 0 ? 0.0 : lse.back() - logits[r * v + target];
          // The difference of two numbers of the logits' size.
          REQUIRE(std::fabs(losses[static_cast<size_t>(r)] - expected) <=
                  4e-7 * (2.0 + 4.0 * spread + std::fabs(expected)));
        }
        check_elements(
            "dlogits", m * v, [&](int64_t i) { return gradient[i]; },
            [&](int64_t i) {
              const int32_t target = targets[static_cast<size_t>(i / v)];
              if (target < 0) return 0.0;
              const double p = std::exp(logits[i] - lse[static_cast<size_t>(i / v)]);
              return scale * (p - (i % v == target ? 1.0 : 0.0));
            },
            [&](double expected) { return 2e-6 * (0.02 * scale + std::fabs(expected)); });
      }
    }
  }
}

TEST_CASE("a NaN anywhere in a row reaches its loss, and no other row's") {
  const int64_t m = 3, v = 37;
  for (const int64_t at : {0, 5, 36}) {
    TypedArray logits(DType::f32, m * v, 2);
    logits.floats()[v + at] = NAN;
    const std::vector<int32_t> targets = {1, 2, 3};
    std::vector<float> losses(3);
    cross_entropy({}, losses.data(), logits.floats(), targets.data(), m, v, true, 1.0f);
    CHECK(std::isfinite(losses[0]));
    CHECK(std::isnan(losses[1]));
    CHECK(std::isfinite(losses[2]));
  }
}

TEST_CASE("a token ruled out by -infinity costs nothing and gets no gradient") {
  std::vector<float> logits = {0.0f, -INFINITY, 0.0f};
  const int32_t target = 2;
  float loss = 0.0f;
  cross_entropy({}, &loss, logits.data(), &target, 1, 3, true, 1.0f);
  CHECK(loss == doctest::Approx(std::log(2.0)).epsilon(1e-7));
  CHECK(logits[0] == doctest::Approx(0.5));
  CHECK(logits[1] == 0.0f);
  CHECK(logits[2] == doctest::Approx(-0.5));
}
