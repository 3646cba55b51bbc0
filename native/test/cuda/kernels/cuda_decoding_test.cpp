// What several conversations share in a step, against the CPU twins, every element; and each row's bits alone and beside
// others, whatever bound of lengths is given.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "cuda/cuda_test.h"
#include "kernels/decoding.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// Caches of `positions.size()` conversations, each with room for its own length and three more.
template <typename T>
struct Conversations {
  int64_t row_size;
  std::vector<std::unique_ptr<TwinArray<T>>> keys, values;
  TwinArray<int32_t> positions;
  std::vector<CacheView> host;
  TwinArray<CacheView> views;

  Conversations(const std::vector<int32_t>& at, int64_t size)
      : row_size(size), positions(static_cast<int64_t>(at.size())), views(static_cast<int64_t>(at.size())) {
    for (size_t i = 0; i < at.size(); ++i) {
      const int64_t count = (at[i] + 4) * row_size;
      keys.push_back(std::make_unique<TwinArray<T>>(count));
      values.push_back(std::make_unique<TwinArray<T>>(count));
      keys.back()->fill(static_cast<uint32_t>(7 * i + 1), 2.0f);
      values.back()->fill(static_cast<uint32_t>(7 * i + 2));
      positions[static_cast<int64_t>(i)] = at[i];
      host.push_back({keys.back()->host(), values.back()->host()});
      views[static_cast<int64_t>(i)] = {keys.back()->device(), values.back()->device()};
    }
    positions.to_device();
    views.to_device();
  }
};

const std::vector<int32_t> lengths = {0, 1, 63, 64, 65, 500, 1000, 127};

template <typename T>
void compare_append(int64_t row_size) {
  Conversations<T> c(lengths, row_size);
  const int64_t n = c.positions.count();
  TwinArray<T> k(n * row_size), v(n * row_size);
  k.fill(3), v.fill(4);
  cache_append(cpu_exec(), c.host.data(), c.positions.host(), k.host(), v.host(), n, row_size);
  cache_append(cuda_exec(), c.views.device(), c.positions.device(), k.device(), v.device(), n, row_size);
  for (size_t i = 0; i < c.keys.size(); ++i) {
    check_equal(*c.keys[i], 0.0, "keys of conversation " + std::to_string(i));
    check_equal(*c.values[i], 0.0, "values of conversation " + std::to_string(i));
  }
}

template <typename T>
void compare_attention(const AttentionShape& shape) {
  Conversations<T> c(lengths, shape.kv_heads * shape.head_dim);
  const int64_t n = c.positions.count(), q_size = shape.heads * shape.head_dim;
  TwinArray<T> q(n * q_size), out(n * q_size), alone(q_size);
  q.fill(5, 2.0f);
  attention_decode_each(cpu_exec(), out.host(), q.host(), c.host.data(), c.positions.host(), n, 1001, shape);
  attention_decode_each(cuda_exec(), out.device(), q.device(), c.views.device(), c.positions.device(), n, 1001, shape);
  const std::string name = std::to_string(sizeof(T)) + " bytes, heads " + std::to_string(shape.heads) + "/" +
                           std::to_string(shape.kv_heads) + " x " + std::to_string(shape.head_dim) + " window " +
                           std::to_string(shape.window);
  check_equal(out, sizeof(T) == 4 ? 2e-6 : 8e-3, name);
  const std::vector<T> together = out.from_device();
  const auto same = [&](const std::vector<T>& a, int64_t row) {
    return std::memcmp(a.data(), together.data() + row * q_size, a.size() * sizeof(T)) == 0;
  };
  for (int64_t i = 0; i < n; ++i) {
    INFO(name << ", conversation " << i);
    for (const int64_t most : {int64_t{c.positions[i] + 1}, int64_t{4096}}) {
      alone.poison();
      attention_decode_each(cuda_exec(), alone.device(), q.device() + i * q_size, c.views.device() + i,
                            c.positions.device() + i, 1, most, shape);
      CHECK(same(alone.from_device(), i));
    }
    alone.poison();
    attention_decode(cuda_exec(), alone.device(), q.device() + i * q_size, c.keys[static_cast<size_t>(i)]->device(),
                     c.values[static_cast<size_t>(i)]->device(), c.positions[i], 1, shape);
    CHECK(same(alone.from_device(), i));
  }
}

}  // namespace

TEST_CASE("new rows go to their places in every conversation's cache, and nowhere else") {
  for (const int64_t row_size : {1, 6, 64, 1024, 1031}) {
    compare_append<float>(row_size);
    compare_append<bf16>(row_size);
  }
}

TEST_CASE("attention over several caches equals the CPU twin's, and one conversation's bits are those it has alone") {
  for (const int64_t window : {0, 40, 64, 300}) {
    for (const auto& [heads, kv_heads, head_dim] :
         {std::array<int64_t, 3>{6, 2, 64}, {3, 1, 18}, {4, 4, 128}, {9, 1, 128}, {2, 1, 256}, {9, 3, 32}}) {
      const AttentionShape shape = {heads, kv_heads, head_dim, window, 1.0f / std::sqrt(static_cast<float>(head_dim))};
      compare_attention<float>(shape);
      compare_attention<bf16>(shape);
    }
  }
}

TEST_CASE("the greedy choice is the first of the largest, with the CPU's log-probability") {
  for (const int64_t v : {1, 2, 31, 1023, 1025, 32000, 49157}) {
    constexpr int64_t n = 5;
    TwinArray<float> logits(n * v);
    TwinArray<int32_t> ids(n);
    TwinArray<double> logprobs(n);
    logits.fill(static_cast<uint32_t>(v), 20.0f);
    for (int64_t i = 0; i < 3 && i < v; ++i) logits[v + v - 1 - i] = 50.0f;  // equal ones: the first wins
    for (int64_t i = 0; i < v; ++i) logits[2 * v + i] = -3.0f;
    logits[3 * v + v / 2] = NAN;
    logits[4 * v + v - 1] = INFINITY;
    logits.to_device();
    greedy_choice(cpu_exec(), ids.host(), logprobs.host(), logits.host(), n, v);
    greedy_choice(cuda_exec(), ids.device(), logprobs.device(), logits.device(), n, v);
    const std::vector<int32_t> found = ids.from_device();
    const std::vector<double> probability = logprobs.from_device();
    CAPTURE(v);
    CHECK(found[1] == std::max<int64_t>(0, v - 3));
    for (size_t i = 0; i < 3; ++i) {
      CHECK(found[i] == ids[static_cast<int64_t>(i)]);
      CHECK(probability[i] == doctest::Approx(logprobs[static_cast<int64_t>(i)]).epsilon(1e-12));
    }
    for (size_t i = 3; i < 5; ++i) {
      CHECK(std::isnan(probability[i]));
      CHECK(std::isnan(logprobs[static_cast<int64_t>(i)]));
    }
  }
}
