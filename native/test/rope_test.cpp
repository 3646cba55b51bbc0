// Rotary embedding against rotate_half written out, and its inverse.
#include "kernels/rope.h"

#include <cmath>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/thread_pool.h"

using namespace caravan;

TEST_CASE("pairs (i, i + half) turn by the angle of their position; the inverse turns them back") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for (const int64_t head_dim : {2, 6, 64, 80}) {
    for (const int64_t heads : {1, 3}) {
      for (const int64_t n : {1, 17, 67}) {
        const int64_t half = head_dim / 2;
        constexpr int64_t positions = 90;
        std::vector<float> cos(static_cast<size_t>(positions * half)), sin(cos.size());
        for (size_t i = 0; i < cos.size(); ++i) {
          cos[i] = std::cos(0.1f * static_cast<float>(i));
          sin[i] = std::sin(0.1f * static_cast<float>(i));
        }
        std::vector<int32_t> position;
        for (int64_t t = 0; t < n; ++t) position.push_back(static_cast<int32_t>(t * 13 % positions));
        std::vector<float> x;
        for (int64_t i = 0; i < n * heads * head_dim; ++i) x.push_back(static_cast<float>(i * 37 % 101) / 50.0f - 1.0f);
        std::vector<float> y = x;
        rope_apply(exec, y.data(), cos.data(), sin.data(), position.data(), n, heads, head_dim, false);
        for (int64_t row = 0; row < n * heads; ++row) {
          const int64_t angle = position[static_cast<size_t>(row / heads)] * half;
          for (int64_t i = 0; i < head_dim; ++i) {
            const double c = cos[static_cast<size_t>(angle + i % half)], s = sin[static_cast<size_t>(angle + i % half)];
            const double here = x[static_cast<size_t>(row * head_dim + i)];
            const double rotated = i < half ? -x[static_cast<size_t>(row * head_dim + i + half)]
                                            : x[static_cast<size_t>(row * head_dim + i - half)];
            REQUIRE(y[static_cast<size_t>(row * head_dim + i)] ==
                    doctest::Approx(here * c + rotated * s).epsilon(1e-5));
          }
        }
        std::vector<bf16> narrow;
        for (const float value : x) narrow.push_back(bf16(value));
        const std::vector<bf16> before = narrow;
        rope_apply(exec, narrow.data(), cos.data(), sin.data(), position.data(), n, heads, head_dim, false);
        for (size_t i = 0; i < y.size(); ++i) REQUIRE(std::fabs(narrow[i] - y[i]) <= 0.02f);
        rope_apply(exec, y.data(), cos.data(), sin.data(), position.data(), n, heads, head_dim, true);
        for (size_t i = 0; i < y.size(); ++i) REQUIRE(std::fabs(y[i] - x[i]) <= 1e-6f);
      }
    }
  }
}
