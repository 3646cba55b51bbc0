// What a query must not see leaves its bits alone: later tokens and tokens before its window, whatever they hold; other
// sequences and the rows of a cache that are not yet written, even if they hold NaN.
#include "kernels/attention.h"

#include <algorithm>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/thread_pool.h"
#include "typed_array.h"

using namespace caravan;
using namespace caravan::test;
using cpu::Isa;

namespace {

constexpr Isa isas[] = {Isa::portable, Isa::avx2, Isa::avx512};
constexpr DType dtypes[] = {DType::f32, DType::bf16};

AttentionShape shape_of(int64_t window) { return {6, 2, 20, window, 0.2f}; }

void set_row(TypedArray& values, int64_t row, int64_t width, float value) {
  for (int64_t i = row * width; i < (row + 1) * width; ++i) cpu::store_element(values.ptr(), i, value);
}

bool same_row(const TypedArray& a, const TypedArray& b, int64_t row, int64_t width) {
  for (int64_t i = row * width; i < (row + 1) * width; ++i) {
    if (a[i] != b[i]) return false;
  }
  return true;
}

/// One pass over packed sequences.
struct Pass {
  TypedArray out, dq, dk, dv;

  Pass(const Exec& exec, const AttentionShape& s, const std::vector<int32_t>& cuts, const TypedArray& q,
       const TypedArray& k, const TypedArray& v, const TypedArray& dout)
      : out(q.dtype, q.count()), dq(out), dk(k.dtype, k.count()), dv(dk) {
    const int64_t n = cuts.back(), sequences = static_cast<int64_t>(cuts.size()) - 1;
    std::vector<float> lse(static_cast<size_t>(s.heads * n));
    attention_forward(exec, out.ptr(), lse.data(), q.ptr(), k.ptr(), v.ptr(), cuts.data(), sequences, n, s);
    attention_backward(exec, dq.ptr(), dk.ptr(), dv.ptr(), dout.ptr(), q.ptr(), k.ptr(), v.ptr(), out.ptr(), lse.data(),
                       cuts.data(), sequences, n, s);
  }
};

}  // namespace

TEST_CASE("a row reaches what sees it and nothing else, forward and backward") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  const std::vector<int32_t> cuts = {0, 37, 38, 131};
  const int64_t n = cuts.back();
  for (const Isa isa : isas) {
    cpu::limit_cpu_isa(isa);
    for (const DType dtype : dtypes) {
      for (const int64_t window : {0, 9, 70}) {
        const AttentionShape s = shape_of(window);
        const int64_t wide = s.heads * s.head_dim, narrow = s.kv_heads * s.head_dim;
        const TypedArray q(dtype, n * wide, 1), k(dtype, n * narrow, 2), v(dtype, n * narrow, 3);
        const TypedArray dout(dtype, n * wide, 4);
        const Pass clean(exec, s, cuts, q, k, v, dout);
        for (const int64_t changed : {0, 20, 36, 37, 38, 90, 130}) {
          INFO(std::string(cpu::isa_name(isa))
               << std::string(dtype == DType::bf16 ? " bf16" : " f32") << ", window " << window << ", row " << changed);
          const auto after = std::upper_bound(cuts.begin(), cuts.end(), static_cast<int32_t>(changed));
          const int64_t start = *(after - 1), end = *after;
          const auto sees = [&](int64_t query, int64_t key) {
            return key <= query && (window == 0 || query - key < window);
          };
          for (const float value : {4.0f, NAN}) {
            // Within its own sequence a NaN may spread through products with zero.
            const auto bound = [&](int64_t row, bool seen) {
              return row < start || row >= end || (!seen && !std::isnan(value));
            };
            TypedArray q2 = q, k2 = k, v2 = v;
            set_row(k2, changed, narrow, value);
            set_row(v2, changed, narrow, value);
            const Pass keys(exec, s, cuts, q, k2, v2, dout);
            set_row(q2, changed, wide, value);
            const Pass queries(exec, s, cuts, q2, k, v, dout);
            for (int64_t row = 0; row < n; ++row) {
              INFO("value " << value << " seen from row " << row);
              const bool own = row >= start && row < end;
              if (bound(row, sees(row, changed))) {
                REQUIRE(same_row(keys.out, clean.out, row, wide));
                REQUIRE(same_row(keys.dq, clean.dq, row, wide));
              } else if (own && sees(row, changed)) {
                REQUIRE(!same_row(keys.out, clean.out, row, wide));
              }
              if (bound(row, sees(changed, row))) {
                REQUIRE(same_row(queries.dk, clean.dk, row, narrow));
                REQUIRE(same_row(queries.dv, clean.dv, row, narrow));
              }
              // The softmax over a single key is 1 whatever the query, to its last bit or not.
              if (row == changed && changed == start) continue;
              REQUIRE(same_row(queries.out, clean.out, row, wide) == (row != changed));
              if (!std::isnan(value)) REQUIRE(same_row(queries.dq, clean.dq, row, wide) == (row != changed));
            }
          }
        }
      }
    }
  }
  cpu::limit_cpu_isa(Isa::avx512);
}

TEST_CASE("decoding reads no row of the cache beyond its token or before its window") {
  for (const Isa isa : isas) {
    cpu::limit_cpu_isa(isa);
    for (const DType dtype : dtypes) {
      for (const int64_t window : {0, 9, 70}) {
        for (const int64_t past : {0, 1, 63, 200, 513}) {
          for (const int64_t n : {1, 5}) {
            const AttentionShape s = shape_of(window);
            const int64_t wide = s.heads * s.head_dim, narrow = s.kv_heads * s.head_dim, capacity = past + n + 40;
            const TypedArray q(dtype, n * wide, 1), k(dtype, capacity * narrow, 2), v(dtype, capacity * narrow, 3);
            TypedArray expected(dtype, n * wide), out = expected, k2 = k, v2 = v;
            attention_decode({}, expected.ptr(), q.ptr(), k.ptr(), v.ptr(), past, n, s);
            for (int64_t row = 0; row < capacity; ++row) {
              const bool unwritten = row >= past + n;
              if (!unwritten && (window == 0 || row > past - window)) continue;
              set_row(k2, row, narrow, unwritten ? NAN : 30.0f);
              set_row(v2, row, narrow, unwritten ? NAN : 30.0f);
            }
            attention_decode({}, out.ptr(), q.ptr(), k2.ptr(), v2.ptr(), past, n, s);
            INFO(std::string(cpu::isa_name(isa)) << ", window " << window << ", past " << past << ", new " << n);
            REQUIRE(out.bytes == expected.bytes);
          }
        }
      }
    }
  }
  cpu::limit_cpu_isa(Isa::avx512);
}
