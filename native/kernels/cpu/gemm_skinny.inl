// A few rows of A against a weight that is read once: what decoding does. Bound by memory, or for NF4 by the look-up, so
// that is done on 64 codes at a time and A is reordered once to the order in which the codes come out.
#pragma once

#include "kernels/cpu/gemm_finish.inl"
#include "kernels/cpu/gemm_pack.inl"

namespace caravan::cpu::CARAVAN_ISA {
namespace {

constexpr int64_t block_size = 64;
constexpr int vectors = static_cast<int>(block_size) / Vec::width;
constexpr int chains = 4;  // sums over k that run side by side

enum class BlockOrder { natural, bf16_pairs, nf4_nibbles };

/// NF4 blocks that do not start with a row of the weight go through `dequantize`, in natural order.
BlockOrder block_order(const Operand& b) {
  if (Vec::width == 4) return BlockOrder::natural;
  if (b.type == OperandType::bf16) return BlockOrder::bf16_pairs;
  if (b.type == OperandType::nf4 && b.ld % block_size == 0) return BlockOrder::nf4_nibbles;
  return BlockOrder::natural;
}

/// Which of a block's 64 elements stands at place `i` of the order.
int64_t element_at(BlockOrder order, int64_t i) {
  const int64_t vector = i / Vec::width;
  const int64_t lane = i % Vec::width;
  switch (order) {
    case BlockOrder::natural: return i;
    // Even elements of 2 * width, then the odd ones: a shift and a mask take them out of the loaded words.
    case BlockOrder::bf16_pairs: return vector / 2 * 2 * Vec::width + 2 * lane + vector % 2;
    case BlockOrder::nf4_nibbles:
      if (Vec::width == 16) return vector / 2 * 32 + 2 * lane + vector % 2;
      // Four vectors of high nibbles (even elements), then four of low ones; each from bytes 4q.. of both lanes.
      return 2 * (vector % 4 * 4 + lane % 4 + 16 * (lane / 4)) + vector / 4;
  }
  return i;
}

/// Elements at the front of a weight's row that are read two NF4 blocks at a time (below).
int64_t paired_elements(const Gemm& g) {
#if defined(__AVX512F__)
  if (block_order(g.b) == BlockOrder::nf4_nibbles) return g.k / (2 * block_size) * (2 * block_size);
#endif
  static_cast<void>(g);
  return 0;
}

/// Which of a pair's 128 elements stands at place `i`: vector v has the nibble at bit 4 v of all sixteen words, and a
/// byte's low nibble is the later element.
int64_t paired_element_at(int64_t i) { return 8 * (i % 16) + ((i / 16) ^ 1); }

void skinny_prepare(const Gemm& g, float* a) {
  const BlockOrder order = block_order(g.b);
  const int64_t ld = skinny_ld(g.k);
  const int64_t paired = paired_elements(g);
  int64_t from[block_size];
  for (int64_t i = 0; i < block_size; ++i) from[i] = element_at(order, i);
  for (int64_t row = 0; row < g.m; ++row) {
    float* out = a + row * ld;
    for (int64_t k = 0; k < paired; k += 2 * block_size) {
      float pair[2 * block_size];
      read_run(pair, g.a, row * g.a.ld + k, 2 * block_size, *g.tables);
      for (int64_t i = 0; i < 2 * block_size; ++i) out[k + i] = pair[paired_element_at(i)];
    }
    for (int64_t k = paired; k < ld; k += block_size) {
      float block[block_size] = {};
      const int64_t count = k + block_size <= g.k ? block_size : g.k - k;
      read_run(block, g.a, row * g.a.ld + k, count, *g.tables);
      // A last block that is not whole is read from a padded copy of the weight, in natural order.
      for (int64_t i = 0; i < block_size; ++i) out[k + i] = block[count == block_size ? from[i] : i];
    }
  }
}

template <bool round>
CARAVAN_INLINE Vec rounded(Vec value) {
  return round ? round_to_bf16(value) : value;
}

/// The weights of one block, vector by vector in the block's order.
template <BlockOrder order, bool round>
struct Block;

template <bool round>
struct Block<BlockOrder::natural, round> {
  const float* data;
  CARAVAN_INLINE void decode(Vec* w) const {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) w[v] = rounded<round>(load(data + v * Vec::width));
  }
};

#if defined(__AVX512F__)

template <bool round>
struct Block<BlockOrder::bf16_pairs, round> {
  const bf16_bits* data;
  CARAVAN_INLINE void decode(Vec* w) const {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; v += 2) {
      const __m512i pair = _mm512_loadu_si512(data + v * Vec::width);
      w[v] = {_mm512_castsi512_ps(_mm512_slli_epi32(pair, 16))};
      w[v + 1] = {_mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
    }
  }
};

template <bool round>
struct Block<BlockOrder::nf4_nibbles, round> {
  const uint8_t* packed;
  float absmax;
  const Nf4Tables* tables;
  CARAVAN_INLINE void decode(Vec* w) const {
    const __m512 code = _mm512_load_ps(tables->code);
    const Vec scale = all(absmax);
#pragma GCC unroll 16
    for (int v = 0; v < vectors; v += 2) {
      const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + 8 * v)));
      w[v] = rounded<round>(Vec{_mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), code)} * scale);
      w[v + 1] = rounded<round>(Vec{_mm512_permutexvar_ps(bytes, code)} * scale);
    }
  }
};

/// Sums of one NF4 weight row's pairs of blocks against `rows` rows of A. Sixteen words hold two blocks: shifted by
/// 0, 4 ... 28 bits their low nibbles are eight vectors of codes without any unpacking, the lower lanes of the first
/// block and the upper ones of the second. Each block's sum is scaled once, unless its weights must be rounded first.
template <int rows, bool round>
CARAVAN_INLINE void paired_dot(Vec* sums, const Gemm& g, const float* a, int64_t ld, int64_t first_block,
                               int64_t pairs) {
  const __m512 code = _mm512_load_ps(g.tables->code);
  const uint8_t* packed = g.b.nf4->packed + first_block * (nf4_block / 2);
  for (int r = 0; r < rows; ++r) sums[r] = zero();
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const __m512i words = _mm512_loadu_si512(packed + pair * nf4_block);
    const __m512 lower = _mm512_set1_ps(nf4_absmax(*g.b.nf4, first_block + 2 * pair, *g.tables));
    const __m512 upper = _mm512_set1_ps(nf4_absmax(*g.b.nf4, first_block + 2 * pair + 1, *g.tables));
    const Vec scale = {_mm512_mask_blend_ps(0xff00, lower, upper)};
    Vec partial[rows][2];
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) {
      const __m512i index = v == 0 ? words : _mm512_srli_epi32(words, static_cast<unsigned>(4 * v));
      Vec w = {_mm512_permutexvar_ps(index, code)};
      if (round) w = rounded<true>(w * scale);
#pragma GCC unroll 2
      for (int r = 0; r < rows; ++r) {
        const Vec x = load(a + r * ld + pair * 2 * block_size + v * Vec::width);
        partial[r][v % 2] = v < 2 ? w * x : fma(w, x, partial[r][v % 2]);
      }
    }
    for (int r = 0; r < rows; ++r) {
      const Vec sum = partial[r][0] + partial[r][1];
      sums[r] = round ? sums[r] + sum : fma(scale, sum, sums[r]);
    }
  }
}

#elif defined(__AVX2__)

template <bool round>
struct Block<BlockOrder::bf16_pairs, round> {
  const bf16_bits* data;
  CARAVAN_INLINE void decode(Vec* w) const {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; v += 2) {
      const __m256i pair = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + v * Vec::width));
      w[v] = {_mm256_castsi256_ps(_mm256_slli_epi32(pair, 16))};
      w[v + 1] = {_mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32(static_cast<int>(0xffff0000u))))};
    }
  }
};

template <bool round>
struct Block<BlockOrder::nf4_nibbles, round> {
  const uint8_t* packed;
  float absmax;
  const Nf4Tables* tables;
  CARAVAN_INLINE void decode(Vec* w) const {
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed));
    const Vec scale = all(absmax);
    __m256i plane[4];
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) {
      plane[b] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(tables->byte_plane[b])));
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m256i index = _mm256_and_si256(half == 0 ? _mm256_srli_epi16(bytes, 4) : bytes, nibble);
      const __m256i b0 = _mm256_shuffle_epi8(plane[0], index);
      const __m256i b1 = _mm256_shuffle_epi8(plane[1], index);
      const __m256i b2 = _mm256_shuffle_epi8(plane[2], index);
      const __m256i b3 = _mm256_shuffle_epi8(plane[3], index);
#pragma GCC unroll 2
      for (int pair = 0; pair < 2; ++pair) {
        const __m256i lower = pair == 0 ? _mm256_unpacklo_epi8(b0, b1) : _mm256_unpackhi_epi8(b0, b1);
        const __m256i upper = pair == 0 ? _mm256_unpacklo_epi8(b2, b3) : _mm256_unpackhi_epi8(b2, b3);
        const int v = 4 * half + 2 * pair;
        w[v] = rounded<round>(Vec{_mm256_castsi256_ps(_mm256_unpacklo_epi16(lower, upper))} * scale);
        w[v + 1] = rounded<round>(Vec{_mm256_castsi256_ps(_mm256_unpackhi_epi16(lower, upper))} * scale);
      }
    }
  }
};

#endif

/// Sums of one weight row against `rows` rows of A: block v's vectors go to chain v % chains.
template <int rows, typename BlockAt>
CARAVAN_INLINE void dot(float* sums, const float* a, int64_t ld, int64_t blocks, BlockAt&& block_at) {
  Vec sum[rows][chains];
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < chains; ++c) sum[r][c] = zero();
  }
  for (int64_t block = 0; block < blocks; ++block) {
    Vec w[vectors];
    block_at(block, w);
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 2
      for (int r = 0; r < rows; ++r) {
        sum[r][v % chains] = fma(w[v], load(a + r * ld + block * block_size + v * Vec::width), sum[r][v % chains]);
      }
    }
  }
  for (int r = 0; r < rows; ++r) sums[r] = sum_lanes((sum[r][0] + sum[r][1]) + (sum[r][2] + sum[r][3]));
}

/// The weight row's last, partial block padded with zeros, or (NF4 out of step with the rows) the whole row.
template <bool round>
CARAVAN_INLINE void read_padded(float* out, const Gemm& g, int64_t j, int64_t first) {
  const int64_t count = g.k - first;
  read_run(out, g.b, j * g.b.ld + first, count, *g.tables);
  for (int64_t i = count; i < skinny_ld(count); ++i) out[i] = 0.0f;
}

template <int rows, BlockOrder order, bool round>
void skinny_row(float* sums, const Gemm& g, const float* a, int64_t j, float* scratch) {
  const int64_t ld = skinny_ld(g.k);
  const int64_t whole = g.k / block_size;
  if constexpr (order == BlockOrder::nf4_nibbles) {
    const int64_t first_block = j * g.b.ld / nf4_block;
#if defined(__AVX512F__)
    const int64_t paired = whole / 2 * 2;
    Vec pairs[rows];
    paired_dot<rows, round>(pairs, g, a, ld, first_block, paired / 2);
    if (paired < whole) {
      Vec w[vectors];
      Block<order, round>{g.b.nf4->packed + (first_block + paired) * (nf4_block / 2),
                          nf4_absmax(*g.b.nf4, first_block + paired, *g.tables), g.tables}
          .decode(w);
      for (int r = 0; r < rows; ++r) {
        for (int v = 0; v < vectors; ++v) {
          pairs[r] = fma(w[v], load(a + r * ld + paired * block_size + v * Vec::width), pairs[r]);
        }
      }
    }
    for (int r = 0; r < rows; ++r) sums[r] = sum_lanes(pairs[r]);
    return;
#endif
    dot<rows>(
        sums, a, ld, whole, [&](int64_t block, Vec * w) __attribute__((always_inline)) {
          Block<order, round>{g.b.nf4->packed + (first_block + block) * (nf4_block / 2),
                              nf4_absmax(*g.b.nf4, first_block + block, *g.tables), g.tables}
              .decode(w);
        });
  } else if constexpr (order == BlockOrder::bf16_pairs) {
    const bf16_bits* row = static_cast<const bf16_bits*>(g.b.data) + j * g.b.ld;
    if (whole < ld / block_size) read_padded<false>(scratch, g, j, whole * block_size);
    dot<rows>(
        sums, a, ld, ld / block_size, [&](int64_t block, Vec * w) __attribute__((always_inline)) {
          if (block < whole) {
            Block<order, false>{row + block * block_size}.decode(w);
          } else {
            Block<BlockOrder::natural, false>{scratch}.decode(w);
          }
        });
  } else if (g.b.type == OperandType::f32) {
    const float* row = static_cast<const float*>(g.b.data) + j * g.b.ld;
    if (whole < ld / block_size) read_padded<round>(scratch, g, j, whole * block_size);
    dot<rows>(
        sums, a, ld, ld / block_size, [&](int64_t block, Vec * w) __attribute__((always_inline)) {
          Block<order, round>{block < whole ? row + block * block_size : scratch}.decode(w);
        });
  } else {
    read_padded<round>(scratch, g, j, 0);
    dot<rows>(
        sums, a, ld, ld / block_size, [&](int64_t block, Vec * w) __attribute__((always_inline)) {
          Block<order, false>{scratch + block * block_size}.decode(w);
        });
  }
}

using SkinnyRow = void (*)(float*, const Gemm&, const float*, int64_t, float*);

template <int rows>
SkinnyRow skinny_row_for(const Operand& b) {
  switch (block_order(b)) {
    case BlockOrder::natural:
      return b.round_to_bf16 ? skinny_row<rows, BlockOrder::natural, true>
                             : skinny_row<rows, BlockOrder::natural, false>;
#if defined(__AVX2__)
    case BlockOrder::bf16_pairs: return skinny_row<rows, BlockOrder::bf16_pairs, false>;
    case BlockOrder::nf4_nibbles:
      return b.round_to_bf16 ? skinny_row<rows, BlockOrder::nf4_nibbles, true>
                             : skinny_row<rows, BlockOrder::nf4_nibbles, false>;
#else
    default: break;
#endif
  }
  return nullptr;
}

void skinny_columns(const Gemm& g, const float* a, int64_t j0, int64_t j1, float* scratch) {
  constexpr int64_t group = 32;
  const int64_t ld = skinny_ld(g.k);
  const SkinnyRow one = skinny_row_for<1>(g.b);
  const SkinnyRow two = skinny_row_for<2>(g.b);
  float sums[skinny_rows * group];
  for (int64_t j = j0; j < j1; j += group) {
    const int64_t columns = j + group < j1 ? group : j1 - j;
    for (int64_t column = 0; column < columns; ++column) {
      float result[2];
      int64_t row = 0;
      for (; row + 2 <= g.m; row += 2) {
        two(result, g, a + row * ld, j + column, scratch);
        sums[row * group + column] = result[0];
        sums[(row + 1) * group + column] = result[1];
      }
      if (row < g.m) {
        one(result, g, a + row * ld, j + column, scratch);
        sums[row * group + column] = result[0];
      }
    }
    finish(g, sums, group, 0, g.m, j, columns);
  }
}

}  // namespace
}  // namespace caravan::cpu::CARAVAN_ISA
