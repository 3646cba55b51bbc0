// Attention on the GPU against the CPU twin, every element: both dtypes, the head sizes of each kernel, groups, windows,
// packed sequences of every awkward length, decoding; and the same bits from run to run and beside other sequences.
#include <algorithm>
#include <cstring>

#include "cuda/cuda_test.h"
#include "kernels/attention.h"
#include "kernels/cuda/context.h"

using namespace caravan;
using namespace caravan::test;

namespace {

AttentionShape shape_of(int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t window) {
  return {heads, kv_heads, head_dim, window, 1.0f / std::sqrt(static_cast<float>(head_dim))};
}

std::string name_of(const AttentionShape& s, bool wide) {
  return std::string(wide ? "f32" : "bf16") + " heads " + std::to_string(s.heads) + "/" + std::to_string(s.kv_heads) +
         " x " + std::to_string(s.head_dim) + " window " + std::to_string(s.window) + " ";
}

/// check_equal, but a tensor of nothing but rounding (a query that sees one key has no gradient) is measured by 1.
template <typename T>
void check_close(TwinArray<T>& array, double relative, const std::string& what) {
  INFO(what);
  double largest = 1.0, squares = 0.0, differences = 0.0;
  for (int64_t i = 0; i < array.count(); ++i) largest = std::max(largest, std::fabs(static_cast<double>(array[i])));
  const std::vector<T> found = array.from_device();
  int64_t wrong = 0;
  for (int64_t i = 0; i < array.count(); ++i) {
    const double a = static_cast<double>(found[static_cast<size_t>(i)]), b = static_cast<double>(array[i]);
    squares += b * b;
    differences += (a - b) * (a - b);
    if (!(std::fabs(a - b) <= relative * largest) && wrong++ == 0) {
      FAIL_CHECK("element " << i << " of " << array.count() << ": " << a << " on the GPU, " << b << " on the CPU");
    }
  }
  CHECK(wrong == 0);
  CHECK(std::sqrt(differences) <=
        relative * (std::sqrt(squares) + 0.1 * std::sqrt(static_cast<double>(array.count()))));
}

/// The arrays of one call, filled alike on both devices.
template <typename T>
struct Arrays {
  AttentionShape shape;
  int64_t n, sequences;
  TwinArray<int32_t> cuts;
  TwinArray<T> q, k, v, dout, out, dq, dk, dv;
  TwinArray<float> lse;

  Arrays(const AttentionShape& s, const std::vector<int32_t>& cu_seqlens)
      : shape(s),
        n(cu_seqlens.back()),
        sequences(static_cast<int64_t>(cu_seqlens.size()) - 1),
        cuts(sequences + 1),
        q(n * s.heads * s.head_dim),
        k(n * s.kv_heads * s.head_dim),
        v(k.count()),
        dout(q.count()),
        out(q.count()),
        dq(q.count()),
        dk(k.count()),
        dv(k.count()),
        lse(s.heads * n) {
    for (int64_t i = 0; i <= sequences; ++i) cuts[i] = cu_seqlens[static_cast<size_t>(i)];
    cuts.to_device();
    q.fill(1, 2.0f);
    k.fill(2, 2.0f);
    v.fill(3);
    dout.fill(4);
  }
  void forward_device() {
    attention_forward(cuda_exec(), out.device(), lse.device(), q.device(), k.device(), v.device(), cuts.device(),
                      sequences, n, shape);
  }
  void backward_device() {
    attention_backward(cuda_exec(), dq.device(), dk.device(), dv.device(), dout.device(), q.device(), k.device(),
                       v.device(), out.device(), lse.device(), cuts.device(), sequences, n, shape);
  }
};

/// Runs body with the kernels of every generation that this device can run; `name` tells them apart.
template <typename F>
void on_each_generation(F&& body) {
  cuda::Context& context = *cuda_exec().cuda;
  context.limit_compute_capability(80);
  body("sm_80 ");
  context.limit_compute_capability(1000);
  if (context.compute_capability() == 90) body("sm_90 ");
}

template <typename T>
void compare(const AttentionShape& shape, const std::vector<int32_t>& cuts) {
  Arrays<T> a(shape, cuts);
  const bool wide = sizeof(T) == 4;
  const std::string what = name_of(shape, wide) + "n " + std::to_string(a.n) + ": ";
  attention_forward(cpu_exec(), a.out.host(), a.lse.host(), a.q.host(), a.k.host(), a.v.host(), a.cuts.host(),
                    a.sequences, a.n, shape);
  on_each_generation([&](const std::string& generation) {
    a.out.poison();
    a.lse.poison();
    a.forward_device();
    check_close(a.out, wide ? 2e-6 : 8e-3, generation + what + "out");
    check_close(a.lse, wide ? 2e-6 : 1e-5, generation + what + "lse");
  });
  // Both go back from the same output, so that its rounding is not counted twice.
  a.out.to_device();
  a.lse.to_device();
  attention_backward(cpu_exec(), a.dq.host(), a.dk.host(), a.dv.host(), a.dout.host(), a.q.host(), a.k.host(),
                     a.v.host(), a.out.host(), a.lse.host(), a.cuts.host(), a.sequences, a.n, shape);
  on_each_generation([&](const std::string& generation) {
    for (TwinArray<T>* gradient : {&a.dq, &a.dk, &a.dv}) gradient->poison();
    a.backward_device();
    check_close(a.dq, wide ? 1e-5 : 1e-2, generation + what + "dq");
    check_close(a.dk, wide ? 1e-5 : 1e-2, generation + what + "dk");
    check_close(a.dv, wide ? 1e-5 : 1e-2, generation + what + "dv");
  });
}

template <typename T>
void compare_decode(const AttentionShape& shape, int64_t past, int64_t n) {
  const int64_t keys = past + n;
  TwinArray<T> q(n * shape.heads * shape.head_dim), out(q.count()), k(keys * shape.kv_heads * shape.head_dim),
      v(k.count());
  q.fill(1, 2.0f);
  k.fill(2, 2.0f);
  v.fill(3);
  attention_decode(cpu_exec(), out.host(), q.host(), k.host(), v.host(), past, n, shape);
  on_each_generation([&](const std::string& generation) {
    out.poison();
    attention_decode(cuda_exec(), out.device(), q.device(), k.device(), v.device(), past, n, shape);
    check_close(
        out, sizeof(T) == 4 ? 2e-6 : 8e-3,
        generation + name_of(shape, sizeof(T) == 4) + "past " + std::to_string(past) + " n " + std::to_string(n));
  });
}

// Lengths of 1, below, at and above the tiles of 16 to 128, empty sequences among them.
const std::vector<int32_t> packed = {0, 1, 64, 64, 65, 194, 323, 579, 580, 707};

template <typename T>
bool same_bits(const std::vector<T>& a, const T* b) {
  return std::memcmp(a.data(), b, a.size() * sizeof(T)) == 0;
}

void repeat(int64_t head_dim) {
  const AttentionShape shape = shape_of(4, 2, head_dim, 0);
  Arrays<bf16> a(shape, packed), again(shape, packed);
  for (Arrays<bf16>* x : {&a, &again}) {
    x->forward_device();
    x->backward_device();
  }
  const auto out = a.out.from_device(), dq = a.dq.from_device(), dk = a.dk.from_device(), dv = a.dv.from_device();
  CHECK(same_bits(again.out.from_device(), out.data()));
  CHECK(same_bits(again.lse.from_device(), a.lse.from_device().data()));
  CHECK(same_bits(again.dq.from_device(), dq.data()));
  CHECK(same_bits(again.dk.from_device(), dk.data()));
  CHECK(same_bits(again.dv.from_device(), dv.data()));
  attention_forward(cuda_exec(), again.out.device(), nullptr, a.q.device(), a.k.device(), a.v.device(), a.cuts.device(),
                    a.sequences, a.n, shape);
  CHECK(same_bits(again.out.from_device(), out.data()));
  // The sequence of tokens 323 .. 578 by itself.
  Arrays<bf16> alone(shape, {0, 256});
  const auto take = [&](TwinArray<bf16>& to, TwinArray<bf16>& from) {
    std::copy_n(from.host() + from.count() / a.n * 323, to.count(), to.host());
    to.to_device();
  };
  take(alone.q, a.q);
  take(alone.k, a.k);
  take(alone.v, a.v);
  take(alone.dout, a.dout);
  alone.forward_device();
  alone.backward_device();
  const int64_t q_row = shape.heads * head_dim, kv_row = shape.kv_heads * head_dim;
  CHECK(same_bits(alone.out.from_device(), out.data() + 323 * q_row));
  CHECK(same_bits(alone.dq.from_device(), dq.data() + 323 * q_row));
  CHECK(same_bits(alone.dk.from_device(), dk.data() + 323 * kv_row));
  CHECK(same_bits(alone.dv.from_device(), dv.data() + 323 * kv_row));
}

}  // namespace

TEST_CASE("forward and backward on the GPU equal their CPU twins for every head size") {
  for (const int64_t head_dim : {16, 18, 32, 64, 80, 96, 128, 192, 256}) {
    const AttentionShape shape = shape_of(3, 1, head_dim, 0);
    compare<float>(shape, packed);
    compare<bf16>(shape, packed);
  }
}

TEST_CASE("forward and backward on the GPU equal their CPU twins for every group of heads") {
  for (const int64_t head_dim : {64, 128}) {
    for (const int64_t group : {1, 3, 4, 8}) {
      const AttentionShape shape = shape_of(2 * group, 2, head_dim, 0);
      compare<float>(shape, {0, 3, 150});
      compare<bf16>(shape, {0, 3, 150, 411});
    }
  }
}

TEST_CASE("forward and backward on the GPU equal their CPU twins for every window") {
  for (const int64_t head_dim : {64, 128, 256}) {
    for (const int64_t window : {1, 2, 63, 64, 100, 200, 5000}) {
      const AttentionShape shape = shape_of(2, 1, head_dim, window);
      compare<float>(shape, {0, 1, 150});
      compare<bf16>(shape, {0, 300, 301, 620});
    }
  }
}

TEST_CASE("one token, one sequence and a thousand short ones") {
  for (const int64_t head_dim : {64, 128}) {
    compare<float>(shape_of(2, 1, head_dim, 0), {0, 1});
    compare<bf16>(shape_of(2, 1, head_dim, 0), {0, 1});
    compare<bf16>(shape_of(2, 2, head_dim, 0), {0, 1100});
    std::vector<int32_t> many = {0};
    for (int i = 0; i < 1000; ++i) many.push_back(many.back() + 1 + i % 3);
    compare<bf16>(shape_of(2, 1, head_dim, 0), many);
  }
}

TEST_CASE("decoding on the GPU equals its CPU twin, for one query, a few and a prompt") {
  for (const AttentionShape& shape :
       {shape_of(6, 2, 64, 0), shape_of(3, 1, 18, 40), shape_of(4, 4, 96, 300), shape_of(8, 1, 128, 0),
        shape_of(4, 4, 128, 200), shape_of(2, 1, 256, 0), shape_of(9, 3, 32, 129)}) {
    for (const int64_t n : {1, 3, 16, 17, 130, 512}) {
      for (const int64_t past : {0, 1, 127, 128, 500, 1500}) {
        compare_decode<float>(shape, past, n);
        compare_decode<bf16>(shape, past, n);
      }
    }
  }
}

TEST_CASE("scores far apart neither overflow nor vanish on the GPU") {
  Arrays<bf16> a(shape_of(2, 1, 128, 0), {0, 90, 400});
  a.q.fill(1, 80.0f);
  a.k.fill(2, 80.0f);
  on_each_generation([&](const std::string& generation) {
    INFO(generation);
    a.forward_device();
    a.backward_device();
    for (const TwinArray<bf16>* x : {&a.out, &a.dq, &a.dk, &a.dv}) {
      for (const bf16 value : x->from_device()) REQUIRE(std::isfinite(static_cast<float>(value)));
    }
  });
}

TEST_CASE("no bit depends on the run, on lse being asked for or on the sequences packed beside") {
  on_each_generation([](const std::string& generation) {
    INFO(generation);
    for (const int64_t head_dim : {64, 128, 256}) repeat(head_dim);
  });
}
