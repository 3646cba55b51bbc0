// Embedding, rows by index and cross entropy on the GPU against their CPU twins.
#include <numeric>

#include "cuda/cuda_test.h"
#include "kernels/classifier.h"

using namespace caravan;
using namespace caravan::test;

namespace {

template <typename T>
auto on(const Exec& exec, TwinArray<T>& array) {
  return exec.device == Device::cpu ? array.host() : array.device();
}

template <typename T, typename S>
void compare_embedding(int64_t n, int64_t c, int64_t v) {
  TwinArray<T> out(n * c);
  TwinArray<S> table(v * c);
  TwinArray<int32_t> ids(n);
  TwinArray<float> dtable(v * c);
  table.fill(1);
  dtable.fill(2);
  // Some ids come often, one in a long run, most never.
  for (int64_t i = 0; i < n; ++i) ids[i] = static_cast<int32_t>(i % 3 == 0 ? v - 1 : (i * i) % v);
  for (int64_t i = n / 2; i < n * 3 / 4; ++i) ids[i] = 0;
  ids.to_device();
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    embedding_forward(exec, on(exec, out), on(exec, table), on(exec, ids), n, c);
  }
  const std::string what = std::to_string(n) + " x " + std::to_string(c);
  check_equal(out, 0.0, "embedding_forward " + what);
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    embedding_backward(exec, on(exec, dtable), on(exec, out), on(exec, ids), n, c, v);
  }
  check_equal(dtable, 0.0, "embedding_backward " + what);
}

template <typename T>
void compare_rows(int64_t m, int64_t c) {
  const int64_t n = m + 7;
  TwinArray<T> x(n * c), out(m * c);
  TwinArray<int32_t> rows(m);
  x.fill(1);
  for (int64_t i = 0; i < m; ++i) rows[i] = static_cast<int32_t>(n - 1 - i);
  rows.to_device();
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    gather_rows(exec, on(exec, out), on(exec, x), on(exec, rows), m, c);
  }
  check_equal(out, 0.0, "gather_rows");
  out.fill(3);
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    scatter_rows_add(exec, on(exec, x), on(exec, out), on(exec, rows), m, c);
  }
  check_equal(x, 0.0, "scatter_rows_add");
}

void compare_entropy(int64_t m, int64_t v, float spread, bool gradient) {
  const std::string what = std::to_string(m) + " x " + std::to_string(v) + ", spread " + std::to_string(spread);
  TwinArray<float> logits(m * v), losses(m);
  TwinArray<int32_t> targets(m);
  logits.fill(1, spread);
  for (int64_t i = 0; i < m; ++i) targets[i] = i % 4 == 3 ? -1 : static_cast<int32_t>((i * 7919) % v);
  targets.to_device();
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    cross_entropy(exec, on(exec, losses), on(exec, logits), on(exec, targets), m, v, gradient, 0.25f);
  }
  check_equal(losses, 1e-6, "losses " + what);
  check_equal(logits, gradient ? 1e-6 : 0.0, (gradient ? "gradient " : "logits ") + what);
}

}  // namespace

TEST_CASE("embedding on the GPU: the rows of each id are added in their order, as on the CPU") {
  for (const int64_t c : {1, 24, 300, 1024}) {
    for (const int64_t n : {0, 1, 255, 257, 1500}) {
      compare_embedding<float, float>(n, c, 41);
      compare_embedding<bf16, float>(n, c, 41);
      compare_embedding<bf16, bf16>(n, c, 1);
      compare_embedding<float, bf16>(n, c, 997);
    }
  }
}

TEST_CASE("rows by index on the GPU equal their CPU twins") {
  for (const int64_t c : {1, 7, 64, 1032}) {
    for (const int64_t m : {0, 1, 130}) {
      compare_rows<float>(m, c);
      compare_rows<bf16>(m, c);
    }
  }
}

TEST_CASE("cross entropy on the GPU equals its CPU twin") {
  for (const bool gradient : {false, true}) {
    for (const float spread : {1.0f, 30.0f}) {
      for (const int64_t v : {1, 2, 31, 256, 1001, 32000, 49153}) compare_entropy(5, v, spread, gradient);
      compare_entropy(0, 8, spread, gradient);
      compare_entropy(300, 64, spread, gradient);
    }
  }
}

TEST_CASE("a nearly certain prediction keeps what is left of its loss; masked logits count nothing") {
  const int64_t v = 1000;
  TwinArray<float> logits(2 * v), losses(2);
  TwinArray<int32_t> targets(2);
  for (int64_t i = 0; i < v; ++i) {
    logits[i] = i == 3 ? 20.0f : 0.0f;
    logits[v + i] = i % 10 == 0 ? 1.0f : -INFINITY;
  }
  targets[0] = 3;
  targets[1] = 10;
  logits.to_device();
  targets.to_device();
  cross_entropy(cpu_exec(), losses.host(), logits.host(), targets.host(), 2, v, true, 1.0f);
  cross_entropy(cuda_exec(), losses.device(), logits.device(), targets.device(), 2, v, true, 1.0f);
  CHECK(losses[0] > 1e-6f);
  const std::vector<float> found = losses.from_device();
  CHECK(std::fabs(found[0] - losses[0]) <= 1e-5f * losses[0]);
  CHECK(std::fabs(found[1] - std::log(100.0f)) <= 1e-5f);
  check_equal(logits, 1e-6, "gradient");
}
