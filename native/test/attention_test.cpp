// Blocked attention against its definition in fp64, every element; the definition's gradients against finite
// differences; and the promises: sequences do not see each other, no bit depends on threads or on the packing.
#include "kernels/attention.h"

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/cpu/attention_reference.h"
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
  Array(DType type, int64_t count, uint32_t seed, float spread = 1.0f) : Array(type, count) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, spread);
    for (int64_t i = 0; i < count; ++i) cpu::store_element(ptr(), i, normal(random));
  }
  Ptr ptr() { return {bytes.data(), dtype}; }
  ConstPtr ptr() const { return {bytes.data(), dtype}; }
  int64_t count() const { return static_cast<int64_t>(bytes.size() / size_of(dtype)); }
  float operator[](int64_t i) const { return cpu::load_element(ptr(), i); }
};

struct Case {
  AttentionShape shape;
  std::vector<int32_t> cuts;

  int64_t n() const { return cuts.back(); }
  int64_t sequences() const { return static_cast<int64_t>(cuts.size()) - 1; }
};

AttentionShape shape_of(int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t window) {
  return {heads, kv_heads, head_dim, window, 1.0f / std::sqrt(static_cast<float>(head_dim))};
}

// Groups of 1, 2, 3 and all heads; head sizes odd, small, common and large; lengths around the blocks of 48 and 64;
// windows smaller and larger than a block; an empty sequence.
std::vector<Case> cases() {
  return {
      {shape_of(1, 1, 8, 0), {0, 1}},       {shape_of(3, 1, 17, 0), {0, 3, 3, 70}},
      {shape_of(4, 4, 33, 5), {0, 67, 68}}, {shape_of(6, 2, 64, 0), {0, 48, 112, 241}},
      {shape_of(2, 1, 80, 64), {0, 200}},   {shape_of(4, 2, 128, 100), {0, 131, 260}},
      {shape_of(2, 2, 256, 1), {0, 65}},
  };
}

void check_close(const Array& actual, const Array& expected, double relative, const std::string& what) {
  INFO(what);
  double largest = 1.0;  // where a query sees one key, its gradient is zero but for rounding
  for (int64_t i = 0; i < expected.count(); ++i)
    largest = std::max(largest, std::fabs(static_cast<double>(expected[i])));
  int64_t wrong = 0;
  for (int64_t i = 0; i < actual.count(); ++i) {
    const double rounding = actual.dtype == DType::bf16 ? std::fabs(expected[i]) / 127.0 : 0.0;
    if (!(std::fabs(static_cast<double>(actual[i]) - expected[i]) <= relative * largest + rounding)) {
      if (wrong++ == 0) FAIL_CHECK("element " << i << ": " << actual[i] << ", expected " << expected[i]);
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

struct Tensors {
  Array q, k, v, dout, out, lse, dq, dk, dv;

  Tensors(const Case& c, DType dtype, uint32_t seed)
      : q(dtype, c.n() * c.shape.heads * c.shape.head_dim, seed, 2.0f),
        k(dtype, c.n() * c.shape.kv_heads * c.shape.head_dim, seed + 1, 2.0f),
        v(dtype, c.n() * c.shape.kv_heads * c.shape.head_dim, seed + 2),
        dout(dtype, q.count(), seed + 3),
        out(dtype, q.count()),
        lse(DType::f32, c.shape.heads * c.n()),
        dq(dtype, q.count()),
        dk(dtype, k.count()),
        dv(dtype, k.count()) {}

  void run(const Exec& exec, const Case& c) {
    attention_forward(exec, out.ptr(), lse.ptr().as<float>(), q.ptr(), k.ptr(), v.ptr(), c.cuts.data(), c.sequences(),
                      c.n(), c.shape);
    attention_backward(exec, dq.ptr(), dk.ptr(), dv.ptr(), dout.ptr(), q.ptr(), k.ptr(), v.ptr(), out.ptr(),
                       lse.ptr().as<float>(), c.cuts.data(), c.sequences(), c.n(), c.shape);
  }
};

}  // namespace

TEST_CASE("forward and backward equal the definition for every shape, window, type and instruction set") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for (const Isa isa : isas()) {
    cpu::limit_cpu_isa(isa);
    for (const Case& c : cases()) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const std::string what = std::string(cpu::isa_name(isa)) + " head_dim " + std::to_string(c.shape.head_dim) +
                                 (dtype == DType::f32 ? " f32 " : " bf16 ");
        Tensors t(c, dtype, 1), e(c, dtype, 1);
        t.run(exec, c);
        cpu::reference::attention_forward(e.out.ptr(), e.lse.ptr().as<float>(), e.q.ptr(), e.k.ptr(), e.v.ptr(),
                                          c.cuts.data(), c.sequences(), c.n(), c.shape);
        cpu::reference::attention_backward(e.dq.ptr(), e.dk.ptr(), e.dv.ptr(), e.dout.ptr(), e.q.ptr(), e.k.ptr(),
                                           e.v.ptr(), c.cuts.data(), c.sequences(), c.n(), c.shape);
        check_close(t.out, e.out, 3e-6, what + "out");
        check_close(t.lse, e.lse, 1e-6, what + "lse");
        // delta is taken from the stored output, so in bf16 its rounding comes back in the gradients.
        const double relative = dtype == DType::f32 ? 1e-5 : 1e-2;
        check_close(t.dq, e.dq, relative, what + "dq");
        check_close(t.dk, e.dk, relative, what + "dk");
        check_close(t.dv, e.dv, relative, what + "dv");
      }
    }
  }
  cpu::limit_cpu_isa(Isa::avx512bf16);
}

TEST_CASE("lse may be null") {
  const Case c{shape_of(2, 1, 16, 0), {0, 30}};
  Tensors with(c, DType::f32, 5), without(c, DType::f32, 5);
  with.run({}, c);
  attention_forward({}, without.out.ptr(), nullptr, without.q.ptr(), without.k.ptr(), without.v.ptr(), c.cuts.data(), 1,
                    30, c.shape);
  CHECK(with.out.bytes == without.out.bytes);
}

TEST_CASE("the definition's gradients are those of finite differences") {
  const Case c{shape_of(2, 1, 6, 4), {0, 3, 9}};
  Tensors t(c, DType::f32, 3);
  cpu::reference::attention_backward(t.dq.ptr(), t.dk.ptr(), t.dv.ptr(), t.dout.ptr(), t.q.ptr(), t.k.ptr(), t.v.ptr(),
                                     c.cuts.data(), c.sequences(), c.n(), c.shape);
  const auto loss = [&] {
    cpu::reference::attention_forward(t.out.ptr(), nullptr, t.q.ptr(), t.k.ptr(), t.v.ptr(), c.cuts.data(),
                                      c.sequences(), c.n(), c.shape);
    double sum = 0.0;
    for (int64_t i = 0; i < t.out.count(); ++i) sum += static_cast<double>(t.out[i]) * t.dout[i];
    return sum;
  };
  const auto check = [&](Array& x, const Array& dx) {
    for (int64_t i = 0; i < x.count(); ++i) {
      const float at = x[i];
      constexpr float step = 1.0f / 128;
      cpu::store_element(x.ptr(), i, at + step);
      const double above = loss();
      cpu::store_element(x.ptr(), i, at - step);
      const double below = loss();
      cpu::store_element(x.ptr(), i, at);
      CHECK(dx[i] == doctest::Approx((above - below) / (2.0 * step)).epsilon(2e-3).scale(1.0));
    }
  };
  check(t.q, t.dq);
  check(t.k, t.dk);
  check(t.v, t.dv);
}

TEST_CASE("no bit depends on the thread count or on the sequences packed beside") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Case packed{shape_of(3, 1, 40, 0), {0, 70, 220, 229}};
    Tensors alone(packed, dtype, 7);
    alone.run({}, packed);
    for (const int threads : {2, 5}) {
      const auto pool = make_thread_pool(threads);
      Exec exec;
      exec.pool = pool.get();
      Tensors t(packed, dtype, 7);
      t.run(exec, packed);
      CHECK(t.out.bytes == alone.out.bytes);
      CHECK(t.lse.bytes == alone.lse.bytes);
      CHECK(t.dq.bytes == alone.dq.bytes);
      CHECK(t.dk.bytes == alone.dk.bytes);
      CHECK(t.dv.bytes == alone.dv.bytes);
    }
    // The middle sequence by itself.
    const Case middle{packed.shape, {0, 150}};
    Tensors t(middle, dtype, 0);
    const auto copy = [&](Array& to, const Array& from) {
      const size_t row = from.bytes.size() / 229;
      std::memcpy(to.bytes.data(), from.bytes.data() + 70 * row, 150 * row);
    };
    copy(t.q, alone.q);
    copy(t.k, alone.k);
    copy(t.v, alone.v);
    copy(t.dout, alone.dout);
    t.run({}, middle);
    Tensors expected(middle, dtype, 0);
    copy(expected.out, alone.out);
    copy(expected.dq, alone.dq);
    copy(expected.dk, alone.dk);
    copy(expected.dv, alone.dv);
    CHECK(t.out.bytes == expected.out.bytes);
    CHECK(t.dq.bytes == expected.dq.bytes);
    CHECK(t.dk.bytes == expected.dk.bytes);
    CHECK(t.dv.bytes == expected.dv.bytes);
  }
}

TEST_CASE("decoding against a cache equals the definition, for one query and for a prompt") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for (const Isa isa : isas()) {
    cpu::limit_cpu_isa(isa);
    for (const AttentionShape& shape : {shape_of(6, 2, 64, 0), shape_of(3, 1, 17, 40), shape_of(4, 4, 96, 300)}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const int64_t n : {1, 3, 4, 5, 67}) {
          for (const int64_t past : {0, 1, 63, 64, 127, 128, 500}) {
            const int64_t keys = past + n;
            const Array q(dtype, n * shape.heads * shape.head_dim, 1);
            const Array k(dtype, keys * shape.kv_heads * shape.head_dim, 2);
            const Array v(dtype, keys * shape.kv_heads * shape.head_dim, 3);
            Array out(dtype, q.count()), expected(dtype, q.count());
            attention_decode(exec, out.ptr(), q.ptr(), k.ptr(), v.ptr(), past, n, shape);
            cpu::reference::attention_decode(expected.ptr(), q.ptr(), k.ptr(), v.ptr(), past, n, shape);
            check_close(out, expected, 3e-6, "n " + std::to_string(n) + " past " + std::to_string(past));
          }
        }
      }
    }
  }
  cpu::limit_cpu_isa(Isa::avx512bf16);
}

TEST_CASE("scores far apart neither overflow nor vanish") {
  const Case c{shape_of(1, 1, 16, 0), {0, 90}};
  Tensors t(c, DType::f32, 9);
  for (int64_t i = 0; i < t.q.count(); ++i) {
    cpu::store_element(t.q.ptr(), i, 40.0f * t.q[i]);
    cpu::store_element(t.k.ptr(), i, 40.0f * t.k[i]);
  }
  t.run({}, c);
  for (const Array* x : {&t.out, &t.lse, &t.dq, &t.dk, &t.dv}) {
    for (int64_t i = 0; i < x->count(); ++i) REQUIRE(std::isfinite((*x)[i]));
  }
}
