// The loops of attention_kernels.h for one instruction set: included by attention_portable.cpp, attention_avx2.cpp and
// attention_avx512.cpp. Every product of two blocks goes through the micro-kernel of the matrix products.
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/gemm_panels.inl"
#include "kernels/cpu/simd.h"

namespace caravan::cpu::CARAVAN_ISA {
namespace {

constexpr float minus_infinity = -__builtin_inff();

// ---------------------------------------------------------------------------------------------------------------------
// Rows in and out

/// Row `row` of head `head` of an array (rows, heads, head_dim) as fp32; f32 rows are left where they are.
struct Rows {
  const float* data;
  int64_t ld;
};

template <typename T>
CARAVAN_INLINE void widen_row(float* out, const T* in, int64_t count) {
  int64_t i = 0;
  for (; i + Vec::width <= count; i += Vec::width) store(out + i, load(in + i));
  for (; i < count; ++i) out[i] = widen(in[i]);
}

Rows rows_of(bool bf16, const void* array, int64_t first, int64_t count, int64_t head, int64_t heads, int64_t d,
             float* staged) {
  const int64_t at = (first * heads + head) * d;
  if (!bf16) return {static_cast<const float*>(array) + at, heads * d};
  const bf16_bits* in = static_cast<const bf16_bits*>(array) + at;
  for (int64_t i = 0; i < count; ++i) widen_row(staged + i * d, in + i * heads * d, d);
  return {staged, d};
}

template <typename T>
CARAVAN_INLINE void scaled_row(T* out, const float* in, int64_t count, float scale) {
  int64_t i = 0;
  for (; i + Vec::width <= count; i += Vec::width) store(out + i, all(scale) * load(in + i));
  for (; i < count; ++i) store_one(out + i, scale * in[i]);
}

void write_row(bool bf16, void* array, int64_t row, int64_t head, int64_t heads, int64_t d, const float* in,
               float scale) {
  const int64_t at = (row * heads + head) * d;
  if (bf16) {
    scaled_row(static_cast<bf16_bits*>(array) + at, in, d, scale);
  } else {
    scaled_row(static_cast<float*>(array) + at, in, d, scale);
  }
}

/// Panels (d, panel_columns) whose columns are the rows of `in`, padded with zeros to key_block: the B of x in^T.
void pack_across(float* out, Rows in, int64_t rows, int64_t d) {
  for (int64_t p = 0; p < key_block; p += panel_columns, out += d * panel_columns) {
    const int64_t left = rows - p < 0 ? 0 : rows - p;
    pack_transposed(out, in.data + p * in.ld, in.ld, left < panel_columns ? left : panel_columns, d);
  }
}

/// Panels (rows, panel_columns) that cut the rows of `in`, padded with zeros to padded_head_dim: the B of x in.
void pack_along(float* out, Rows in, int64_t rows, int64_t d) {
  for (int64_t p = 0; p < padded_head_dim(d); p += panel_columns, out += rows * panel_columns) {
    const int64_t left = d - p < 0 ? 0 : d - p;
    pack_straight(out, in.data + p, in.ld, left < panel_columns ? left : panel_columns, rows);
  }
}

/// c (rows, columns) = or continues from c, a (rows, k) times packed panels of `panel_k` >= k rows. Columns are rounded up
/// to whole panels.
template <bool a_k_contiguous>
void multiply(float* c, int64_t ldc, const float* a, int64_t stride, const float* panels, int64_t rows, int64_t columns,
              int64_t k, int64_t panel_k, bool resume) {
  for (int64_t j = 0; j < columns; j += panel_columns, panels += panel_k * panel_columns) {
    for (int64_t i = 0; i < rows; i += tile_mr) {
      const int64_t count = i + tile_mr < rows ? tile_mr : rows - i;
      micro_kernel_for<a_k_contiguous>(count)(k, a + (a_k_contiguous ? i * stride : i), stride, panels, c + i * ldc + j,
                                              ldc, resume);
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Which keys a query sees

struct Visible {
  int64_t first, last;  // of a block's columns; empty when first >= last
};

CARAVAN_INLINE Visible visible_in(const AttentionSequence& s, int64_t query, int64_t first_key, int64_t keys) {
  const int64_t position = s.past + query;
  int64_t first = s.window > 0 ? position - s.window + 1 - first_key : 0;
  int64_t last = position + 1 - first_key;
  if (first < 0) first = 0;
  if (last > keys) last = keys;
  return first < last ? Visible{first, last} : Visible{0, 0};
}

/// Keys of a block from its first to the last that query `last_query` sees: what follows is never read.
CARAVAN_INLINE int64_t reach(const AttentionSequence& s, int64_t last_query, int64_t first_key, int64_t keys) {
  const int64_t seen = s.past + last_query + 1 - first_key;
  return seen < keys ? seen : keys;
}

CARAVAN_INLINE int64_t first_block_of(const AttentionSequence& s, int64_t query) {
  const int64_t first = s.window > 0 ? s.past + query - s.window + 1 : 0;
  return first > 0 ? first / key_block : 0;
}

CARAVAN_INLINE int64_t keys_in(const AttentionSequence& s, int64_t block) {
  const int64_t left = s.keys - block * key_block;
  return left < key_block ? left : key_block;
}

// ---------------------------------------------------------------------------------------------------------------------
// Forward

void pack_keys(const AttentionSequence& s, int64_t kv_head, int64_t block, float* packed, float* scratch) {
  const int64_t keys = keys_in(s, block);
  const int64_t d = s.head_dim;
  pack_across(packed, rows_of(s.bf16, s.k, block * key_block, keys, kv_head, s.kv_heads, d, scratch), keys, d);
  pack_along(packed + key_block * d, rows_of(s.bf16, s.v, block * key_block, keys, kv_head, s.kv_heads, d, scratch),
             keys, d);
}

/// Turns a row of scores into exponentials against the running maximum; what was summed before is scaled down to it.
CARAVAN_INLINE void softmax_row(float* scores, Visible seen, float scale, float* maximum, float* sum, float* out,
                                int64_t out_width) {
  if (seen.first >= seen.last) {
    for (int64_t j = 0; j < key_block; j += Vec::width) store(scores + j, zero());
    return;
  }
  for (int64_t j = 0; j < seen.first; ++j) scores[j] = minus_infinity;
  for (int64_t j = seen.last; j < key_block; ++j) scores[j] = minus_infinity;
  Vec largest = all(minus_infinity);
  for (int64_t j = 0; j < key_block; j += Vec::width) largest = max(largest, load(scores + j));
  const float block_maximum = scale * max_lane(largest);
  const float now = block_maximum > *maximum ? block_maximum : *maximum;
  Vec total = zero();
  for (int64_t j = 0; j < key_block; j += Vec::width) {
    const Vec p = exp(fma(load(scores + j), all(scale), all(-now)));
    total = total + p;
    store(scores + j, p);
  }
  if (now > *maximum) {
    float lanes[Vec::width];
    store(lanes, exp(all(*maximum - now)));
    const float shrink = lanes[0];
    *sum *= shrink;
    for (int64_t i = 0; i < out_width; i += Vec::width) store(out + i, all(shrink) * load(out + i));
    *maximum = now;
  }
  *sum += sum_lanes(total);
}

void forward_block(const AttentionSequence& s, int64_t head, int64_t block, const float* packed, float* scratch) {
  const int64_t d = s.head_dim;
  const int64_t width = padded_head_dim(d);
  const int64_t first_query = block * query_block;
  const int64_t rows = s.queries - first_query < query_block ? s.queries - first_query : query_block;
  float* scores = scratch;
  float* out = scores + query_block * key_block;
  float* maximum = out + query_block * width;
  float* sum = maximum + query_block;
  const Rows q = rows_of(s.bf16, s.q, first_query, rows, head, s.heads, d, sum + query_block);
  for (int64_t i = 0; i < rows; ++i) {
    maximum[i] = minus_infinity;
    sum[i] = 0.0f;
    for (int64_t j = 0; j < width; ++j) out[i * width + j] = 0.0f;
  }
  const int64_t last_block = (s.past + first_query + rows - 1) / key_block;
  for (int64_t b = first_block_of(s, first_query); b <= last_block; ++b) {
    const int64_t keys = keys_in(s, b);
    const float* k_panels = packed + b * packed_block_floats(d);
    const float* v_panels = k_panels + key_block * d;
    const int64_t seen = reach(s, first_query + rows - 1, b * key_block, keys);
    multiply<true>(scores, key_block, q.data, q.ld, k_panels, rows, seen, d, d, false);
    for (int64_t i = 0; i < rows; ++i) {
      softmax_row(scores + i * key_block, visible_in(s, first_query + i, b * key_block, keys), s.scale, maximum + i,
                  sum + i, out + i * width, width);
    }
    multiply<true>(out, width, scores, key_block, v_panels, rows, d, seen, keys, true);
  }
  for (int64_t i = 0; i < rows; ++i) {
    write_row(s.bf16, s.out, first_query + i, head, s.heads, d, out + i * width, 1.0f / sum[i]);
    if (s.lse != nullptr) s.lse[head * s.lse_stride + first_query + i] = maximum[i] + __builtin_logf(sum[i]);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Backward, of one query head: for each block of keys, over the blocks of queries that see it
//   P = exp(scale Q K^T - lse)   dV += P^T dO   dP = dO V^T   dS = scale P (dP - delta)   dK += dS^T Q   dQ += dS K

/// delta_i = sum over channels of dO_i O_i.
CARAVAN_INLINE float dot_row(const float* a, const float* b, int64_t count) {
  Vec sum = zero();
  int64_t i = 0;
  for (; i + Vec::width <= count; i += Vec::width) sum = fma(load(a + i), load(b + i), sum);
  float rest = 0.0f;
  for (; i < count; ++i) rest += a[i] * b[i];
  return sum_lanes(sum) + rest;
}

/// scores -> P and dP -> dS for the first `keys` of one row; what the query does not see becomes 0.
CARAVAN_INLINE void gradient_row(float* scores, float* dscores, Visible seen, int64_t keys, float scale, float lse,
                                 float delta) {
  for (int64_t j = 0; j < keys; j += Vec::width) {
    const Vec p = exp(fma(load(scores + j), all(scale), all(-lse)));
    store(scores + j, p);
    store(dscores + j, all(scale) * p * (load(dscores + j) - all(delta)));
  }
  for (int64_t j = 0; j < seen.first; ++j) scores[j] = dscores[j] = 0.0f;
  for (int64_t j = seen.last; j < keys; ++j) scores[j] = dscores[j] = 0.0f;
}

void backward_head(const AttentionSequence& s, const AttentionGradients& g, int64_t head, float* scratch) {
  const int64_t d = s.head_dim;
  const int64_t width = padded_head_dim(d);
  const int64_t kv_head = head / s.group();
  const int64_t blocks = (s.queries + query_block - 1) / query_block;
  const int64_t padded_queries = blocks * query_block;
  float* dq = scratch;                            // (queries, width)
  float* q_panels = dq + padded_queries * width;  // blocks of (rows, width)
  float* dout_panels = q_panels + padded_queries * width;
  float* delta = dout_panels + padded_queries * width;  // (queries)
  float* k_across = delta + padded_queries;
  float* v_across = k_across + key_block * d;
  float* k_along = v_across + key_block * d;
  float* dk = k_along + key_block * width;
  float* dv = dk + key_block * width;
  float* scores = dv + key_block * width;
  float* dscores = scores + query_block * key_block;
  float* staged_k = dscores + query_block * key_block;
  float* staged_q = staged_k + key_block * d;
  float* staged_dout = staged_q + padded_queries * d;

  const Rows q = rows_of(s.bf16, s.q, 0, s.queries, head, s.heads, d, staged_q);
  const Rows dout = rows_of(s.bf16, g.dout, 0, s.queries, head, s.heads, d, staged_dout);
  for (int64_t i = 0; i < s.queries; ++i) {
    // One row of O at a time, through memory that is not yet in use.
    const Rows out = rows_of(s.bf16, g.out, i, 1, head, s.heads, d, staged_k);
    delta[i] = dot_row(dout.data + i * dout.ld, out.data, d);
  }
  for (int64_t i = 0; i < padded_queries * width; ++i) dq[i] = 0.0f;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = b * query_block;
    const int64_t rows = s.queries - first < query_block ? s.queries - first : query_block;
    pack_along(q_panels + first * width, {q.data + first * q.ld, q.ld}, rows, d);
    pack_along(dout_panels + first * width, {dout.data + first * dout.ld, dout.ld}, rows, d);
  }

  for (int64_t kb = 0; kb < key_blocks(s.keys); ++kb) {
    const int64_t keys = keys_in(s, kb);
    const int64_t first_key = kb * key_block;
    const Rows k = rows_of(s.bf16, s.k, first_key, keys, kv_head, s.kv_heads, d, staged_k);
    pack_across(k_across, k, keys, d);
    pack_along(k_along, k, keys, d);
    pack_across(v_across, rows_of(s.bf16, s.v, first_key, keys, kv_head, s.kv_heads, d, staged_k), keys, d);
    for (int64_t i = 0; i < key_block * width; ++i) dk[i] = dv[i] = 0.0f;

    for (int64_t b = first_key / query_block; b < blocks; ++b) {
      const int64_t first = b * query_block;
      if (first_block_of(s, first) > kb) break;  // the window has moved past these keys
      const int64_t rows = s.queries - first < query_block ? s.queries - first : query_block;
      const int64_t seen = reach(s, first + rows - 1, first_key, keys);
      multiply<true>(scores, key_block, q.data + first * q.ld, q.ld, k_across, rows, seen, d, d, false);
      multiply<true>(dscores, key_block, dout.data + first * dout.ld, dout.ld, v_across, rows, seen, d, d, false);
      for (int64_t i = 0; i < rows; ++i) {
        gradient_row(scores + i * key_block, dscores + i * key_block, visible_in(s, first + i, first_key, keys), seen,
                     s.scale, g.lse[head * s.lse_stride + first + i], delta[first + i]);
      }
      multiply<false>(dv, width, scores, key_block, dout_panels + first * width, seen, d, rows, rows, true);
      multiply<false>(dk, width, dscores, key_block, q_panels + first * width, seen, d, rows, rows, true);
      multiply<true>(dq + first * width, width, dscores, key_block, k_along, rows, d, seen, keys, true);
    }
    for (int64_t i = 0; i < keys; ++i) {
      write_row(false, g.dk, first_key + i, head, s.heads, d, dk + i * width, 1.0f);
      write_row(false, g.dv, first_key + i, head, s.heads, d, dv + i * width, 1.0f);
    }
  }
  for (int64_t i = 0; i < s.queries; ++i) write_row(s.bf16, g.dq, i, head, s.heads, d, dq + i * width, 1.0f);
}

// ---------------------------------------------------------------------------------------------------------------------
// Decoding: a few queries against a long cache, row by row

template <typename T>
CARAVAN_INLINE float dot_cached(const T* q, const T* k, int64_t count) {
  Vec even = zero();
  Vec odd = zero();
  int64_t i = 0;
  for (; i + 2 * Vec::width <= count; i += 2 * Vec::width) {
    even = fma(load(q + i), load(k + i), even);
    odd = fma(load(q + i + Vec::width), load(k + i + Vec::width), odd);
  }
  float rest = 0.0f;
  for (; i < count; ++i) rest += widen(q[i]) * widen(k[i]);
  return sum_lanes(even + odd) + rest;
}

template <typename T>
void decode_typed(const AttentionSequence& s, int64_t kv_head, int64_t first, int64_t last, float* partial) {
  const int64_t d = s.head_dim;
  const int64_t ld = s.kv_heads * d;
  const T* k = static_cast<const T*>(s.k) + kv_head * d;
  const T* v = static_cast<const T*>(s.v) + kv_head * d;
  const int64_t pairs = s.queries * s.group();
  float p[decode_chunk_keys];
  for (int64_t pair = 0; pair < pairs; ++pair, partial += decode_partial_floats(d)) {
    const int64_t query = pair / s.group();
    const T* q = static_cast<const T*>(s.q) + (query * s.heads + kv_head * s.group() + pair % s.group()) * d;
    const Visible seen = visible_in(s, query, first, last - first);
    float* out = partial + 2;
    partial[0] = minus_infinity;
    partial[1] = 0.0f;
    for (int64_t i = 0; i < d; ++i) out[i] = 0.0f;
    if (seen.first >= seen.last) continue;
    float maximum = minus_infinity;
    for (int64_t j = seen.first; j < seen.last; ++j) {
      p[j] = s.scale * dot_cached(q, k + (first + j) * ld, d);
      maximum = p[j] > maximum ? p[j] : maximum;
    }
    float sum = 0.0f;
    for (int64_t j = seen.first; j < seen.last; j += Vec::width) {
      float lanes[Vec::width];
      const int64_t count = seen.last - j < Vec::width ? seen.last - j : Vec::width;
      for (int64_t l = 0; l < Vec::width; ++l) lanes[l] = l < count ? p[j + l] - maximum : minus_infinity;
      const Vec e = exp(load(lanes));
      store(lanes, e);
      for (int64_t l = 0; l < count; ++l) p[j + l] = lanes[l];
      sum += sum_lanes(e);
    }
    partial[0] = maximum;
    partial[1] = sum;
    int64_t i = 0;
    for (; i + 4 * Vec::width <= d; i += 4 * Vec::width) {
      Vec sums[4] = {zero(), zero(), zero(), zero()};
      for (int64_t j = seen.first; j < seen.last; ++j) {
        const T* row = v + (first + j) * ld + i;
        for (int c = 0; c < 4; ++c) sums[c] = fma(all(p[j]), load(row + c * Vec::width), sums[c]);
      }
      for (int c = 0; c < 4; ++c) store(out + i + c * Vec::width, sums[c]);
    }
    for (; i < d; ++i) {
      for (int64_t j = seen.first; j < seen.last; ++j) out[i] += p[j] * widen(v[(first + j) * ld + i]);
    }
  }
}

void decode_chunk(const AttentionSequence& s, int64_t kv_head, int64_t first, int64_t last, float* partial) {
  if (s.bf16) {
    decode_typed<bf16_bits>(s, kv_head, first, last, partial);
  } else {
    decode_typed<float>(s, kv_head, first, last, partial);
  }
}

}  // namespace

extern const AttentionKernels attention;
const AttentionKernels attention = {pack_keys, forward_block, backward_head, decode_chunk};

}  // namespace caravan::cpu::CARAVAN_ISA
