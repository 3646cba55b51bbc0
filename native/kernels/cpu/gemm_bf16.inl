// Products of bf16 by bf16 with VDPBF16PS. Its unit is a word: elements k and k + 1 of a row of A or a column of B, so
// everything below moves 32-bit words where the fp32 path moves floats, and half as many of them.
//
// An element of C is one chain over the words k = 0, 2, 4, ...; a last word of odd K is filled up with zeros. The
// instruction takes subnormal inputs and results for zero, whatever the control register says.
#pragma once

#include "kernels/cpu/gemm_finish.inl"
#include "kernels/cpu/gemm_pack.inl"

namespace caravan::cpu::CARAVAN_ISA {
namespace {

/// Elements of k in a block: as many words as the fp32 path has floats.
constexpr int64_t max_block_bf16 = 2 * max_block_k;

// ---------------------------------------------------------------------------------------------------------------------
// Micro-kernel

CARAVAN_INLINE __m512i word_everywhere(const bf16_bits* p) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}

/// c (mr, panel_columns) = or continues from c, a (mr, words) times a packed panel b (words, panel_columns). The word
/// (i, w) of A lies at a[i * stride + 2 * w], or a[w * stride + 2 * i] where rows of A do not run along k.
template <int mr, bool a_k_contiguous>
void micro_kernel_bf16(int64_t words, const bf16_bits* a, int64_t stride, const float* b, float* c, int64_t ldc,
                       bool resume) {
  const int64_t row_stride = a_k_contiguous ? stride : 2;
  const int64_t word_stride = a_k_contiguous ? 2 : stride;
  __m512 sum[mr][2];
#pragma GCC unroll 16
  for (int i = 0; i < mr; ++i) {
    sum[i][0] = resume ? _mm512_loadu_ps(c + i * ldc) : _mm512_setzero_ps();
    sum[i][1] = resume ? _mm512_loadu_ps(c + i * ldc + 16) : _mm512_setzero_ps();
  }
  for (int64_t w = 0; w < words; ++w) {
    const __m512i b0 = _mm512_loadu_si512(b);
    const __m512i b1 = _mm512_loadu_si512(b + 16);
#pragma GCC unroll 16
    for (int i = 0; i < mr; ++i) {
      const __m512i word = word_everywhere(a + i * row_stride);
      sum[i][0] = _mm512_dpbf16_ps(sum[i][0], (__m512bh)word, (__m512bh)b0);
      sum[i][1] = _mm512_dpbf16_ps(sum[i][1], (__m512bh)word, (__m512bh)b1);
    }
    a += word_stride;
    b += panel_columns;
  }
#pragma GCC unroll 16
  for (int i = 0; i < mr; ++i) {
    _mm512_storeu_ps(c + i * ldc, sum[i][0]);
    _mm512_storeu_ps(c + i * ldc + 16, sum[i][1]);
  }
}

using MicroKernelBf16 = void (*)(int64_t, const bf16_bits*, int64_t, const float*, float*, int64_t, bool);

template <bool a_k_contiguous>
MicroKernelBf16 micro_kernel_bf16_for(int64_t rows) {
  switch (rows) {
    case 1: return micro_kernel_bf16<1, a_k_contiguous>;
    case 2: return micro_kernel_bf16<2, a_k_contiguous>;
    case 3: return micro_kernel_bf16<3, a_k_contiguous>;
    case 4: return micro_kernel_bf16<4, a_k_contiguous>;
    case 5: return micro_kernel_bf16<5, a_k_contiguous>;
    case 6: return micro_kernel_bf16<6, a_k_contiguous>;
    case 7: return micro_kernel_bf16<7, a_k_contiguous>;
    case 8: return micro_kernel_bf16<8, a_k_contiguous>;
    case 9: return micro_kernel_bf16<9, a_k_contiguous>;
    case 10: return micro_kernel_bf16<10, a_k_contiguous>;
    case 11: return micro_kernel_bf16<11, a_k_contiguous>;
    default: return micro_kernel_bf16<tile_mr, a_k_contiguous>;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Operands as bf16

/// The nearest bf16 of fp32; subnormal ones may become zero, which is what the product takes them for.
CARAVAN_INLINE void narrow_run(bf16_bits* out, const float* in, int64_t count) {
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    _mm512_storeu_si512(out + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(in + i + 16), _mm512_loadu_ps(in + i)));
  }
  for (; i + 16 <= count; i += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(in + i)));
  }
  for (; i < count; ++i) out[i] = narrow(in[i]);
}

/// Elements [first, first + count) of the operand in memory order, where they lie or in `staged`. count <=
/// max_block_bf16.
CARAVAN_INLINE const bf16_bits* bf16_run(bf16_bits* staged, const Operand& x, int64_t first, int64_t count,
                                         const Nf4Tables& tables) {
  if (x.type == OperandType::bf16) return static_cast<const bf16_bits*>(x.data) + first;
  if (x.type == OperandType::f32) {
    narrow_run(staged, static_cast<const float*>(x.data) + first, count);
  } else {
    float values[max_block_bf16];
    dequantize(values, *x.nf4, first, count, tables);
    narrow_run(staged, values, count);
  }
  return staged;
}

/// out[i] = the word (even[i], odd[i]); zero for odd where `odd` is null.
CARAVAN_INLINE void interleave(float* out, const bf16_bits* even, const bf16_bits* odd, int64_t count) {
  alignas(64) static constexpr uint16_t low[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                   8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i first = _mm512_load_si512(low);
  const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
  int64_t i = 0;
  // Whole vectors without masks: Zen 4 takes many cycles for a masked store.
  for (; i + 32 <= count; i += 32) {
    const __m512i e = _mm512_loadu_si512(even + i);
    const __m512i o = odd == nullptr ? _mm512_setzero_si512() : _mm512_loadu_si512(odd + i);
    _mm512_storeu_si512(out + i, _mm512_permutex2var_epi16(e, first, o));
    _mm512_storeu_si512(out + i + 16, _mm512_permutex2var_epi16(e, second, o));
  }
  for (; i < count; ++i) {
    const uint32_t word = even[i] | static_cast<uint32_t>(odd == nullptr ? 0 : odd[i]) << 16;
    std::memcpy(out + i, &word, sizeof word);
  }
}

/// Rows of K that lie along k are read in place, unless a word would reach past the end or twelve rows would fall into
/// the same lines of an L1 cache.
bool in_place(const Operand& x, int64_t kc) {
  return x.type == OperandType::bf16 && x.k_contiguous && kc % 2 == 0 && x.ld % 1024 != 0;
}

/// Elements [i0, i1) x [k0, k0 + kc) as words in the operand's own order: the word (i, w) at out[i * stride + 2 * w] or
/// out[w * stride + 2 * i].
void stage_words(bf16_bits* out, int64_t stride, const Operand& x, int64_t i0, int64_t i1, int64_t k0, int64_t kc,
                 const Nf4Tables& tables) {
  if (x.k_contiguous) {
    for (int64_t i = i0; i < i1; ++i) {
      bf16_bits* row = out + (i - i0) * stride;
      const bf16_bits* run = bf16_run(row, x, i * x.ld + k0, kc, tables);
      if (run != row) std::memcpy(row, run, static_cast<size_t>(kc) * sizeof(bf16_bits));
      if (kc % 2 != 0) row[kc] = 0;
    }
    return;
  }
  bf16_bits even[max_tile_columns];
  bf16_bits odd[max_tile_columns];
  for (int64_t k = 0; k < kc; k += 2) {
    const bf16_bits* first = bf16_run(even, x, (k0 + k) * x.ld + i0, i1 - i0, tables);
    const bf16_bits* second = k + 1 < kc ? bf16_run(odd, x, (k0 + k + 1) * x.ld + i0, i1 - i0, tables) : nullptr;
    interleave(reinterpret_cast<float*>(out + k / 2 * stride), first, second, i1 - i0);
  }
}

/// A panel from `columns` columns of B whose words lie in rows of `stride` elements.
void pack_word_rows(float* panel, const bf16_bits* in, int64_t stride, int64_t columns, int64_t words) {
  for (int64_t done = 0; done < panel_columns; done += 16) {
    int64_t w = 0;
    if (done + 16 <= columns && stride % 2 == 0) {
      const float* rows = reinterpret_cast<const float*>(in + done * stride);
      for (; w + 16 <= words; w += 16) transpose_square(panel + w * panel_columns + done, rows + w, stride / 2);
    }
    for (; w < words; ++w) {
      for (int64_t j = done; j < done + 16; ++j) {
        uint32_t word = 0;
        if (j < columns) std::memcpy(&word, in + j * stride + 2 * w, sizeof word);
        std::memcpy(panel + w * panel_columns + j, &word, sizeof word);
      }
    }
  }
}

/// Columns [j0, j1) of B, at most column_group, as panels of words * panel_columns words each.
void pack_columns_bf16(float* packed, bf16_bits* staged, const Operand& b, int64_t j0, int64_t j1, int64_t k0,
                       int64_t kc, const Nf4Tables& tables) {
  const int64_t words = (kc + 1) / 2;
  if (b.k_contiguous) {
    const bf16_bits* in = static_cast<const bf16_bits*>(b.data) + j0 * b.ld + k0;
    int64_t stride = b.ld;
    if (b.type != OperandType::bf16 || kc % 2 != 0) {
      stride = max_block_bf16;
      stage_words(staged, stride, b, j0, j1, k0, kc, tables);
      in = staged;
    }
    for (int64_t j = 0; j < j1 - j0; j += panel_columns) {
      const int64_t columns = j + panel_columns < j1 - j0 ? panel_columns : j1 - j0 - j;
      pack_word_rows(packed + j * words, in + j * stride, stride, columns, words);
    }
    return;
  }
  bf16_bits even[column_group] = {};
  bf16_bits odd[column_group] = {};
  for (int64_t k = 0; k < kc; k += 2) {
    const bf16_bits* first = bf16_run(even, b, (k0 + k) * b.ld + j0, j1 - j0, tables);
    const bf16_bits* second = k + 1 < kc ? bf16_run(odd, b, (k0 + k + 1) * b.ld + j0, j1 - j0, tables) : nullptr;
    for (int64_t j = 0; j < j1 - j0; j += panel_columns) {
      float* out = packed + j * words + k / 2 * panel_columns;
      const int64_t columns = j + panel_columns < j1 - j0 ? panel_columns : j1 - j0 - j;
      interleave(out, first + j, second == nullptr ? nullptr : second + j, columns);
      for (int64_t i = columns; i < panel_columns; ++i) out[i] = 0.0f;
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Tile: gemm_tile's loops

void gemm_tile_bf16(const Gemm& g, int64_t i0, int64_t i1, int64_t j0, int64_t j1, float* scratch) {
  float* staged_a = scratch;
  float* staged_b = staged_a + max_tile_rows * max_block_k;
  float* packed_b = staged_b + column_group * max_block_k;
  float* between = packed_b + column_group * max_block_k;
  float corner[tile_mr * panel_columns];

  const int64_t blocks = g.k == 0 ? 1 : (g.k + max_block_bf16 - 1) / max_block_bf16;
  const int64_t block_k = ((g.k + blocks - 1) / blocks + 1) / 2 * 2;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t k0 = block * block_k;
    const int64_t kc = k0 + block_k < g.k ? block_k : g.k - k0;
    const int64_t words = (kc + 1) / 2;
    const bool last = block + 1 == blocks;
    const bool resume = block > 0;

    const bf16_bits* a = static_cast<const bf16_bits*>(g.a.data) + i0 * g.a.ld + k0;
    int64_t stride = g.a.ld;
    if (!in_place(g.a, kc)) {
      bf16_bits* staged = reinterpret_cast<bf16_bits*>(staged_a);
      stride = g.a.k_contiguous ? max_block_bf16 : 2 * max_tile_rows;
      stage_words(staged, stride, g.a, i0, i1, k0, kc, *g.tables);
      a = staged;
    }
    for (int64_t group = j0; group < j1; group += column_group) {
      const int64_t group_end = group + column_group < j1 ? group + column_group : j1;
      pack_columns_bf16(packed_b, reinterpret_cast<bf16_bits*>(staged_b), g.b, group, group_end, k0, kc, *g.tables);
      for (int64_t j = group; j < group_end; j += panel_columns) {
        const float* panel = packed_b + (j - group) * words;
        const int64_t columns = j + panel_columns < group_end ? panel_columns : group_end - j;
        for (int64_t i = 0; i < i1 - i0; i += tile_mr) {
          const int64_t rows = i + tile_mr < i1 - i0 ? tile_mr : i1 - i0 - i;
          const MicroKernelBf16 kernel =
              g.a.k_contiguous ? micro_kernel_bf16_for<true>(rows) : micro_kernel_bf16_for<false>(rows);
          const bf16_bits* a_panel = a + (g.a.k_contiguous ? i * stride : 2 * i);
          if (last && !resume) {
            kernel(words, a_panel, stride, panel, corner, panel_columns, false);
            finish(g, corner, panel_columns, i0 + i, rows, j, columns);
          } else {
            float* c = between + i * max_tile_columns + (j - j0);
            kernel(words, a_panel, stride, panel, c, max_tile_columns, resume);
            if (last) finish(g, c, max_tile_columns, i0 + i, rows, j, columns);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace caravan::cpu::CARAVAN_ISA
