// Operands on their way into a product: converted to fp32 (NF4 by table look-up), rounded where asked, and for B laid
// out in panels (k, panel_columns) that the micro-kernel reads straight through.
#pragma once

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_panels.inl"

namespace caravan::cpu::CARAVAN_ISA {
namespace {

// ---------------------------------------------------------------------------------------------------------------------
// NF4

CARAVAN_INLINE float nf4_absmax(const Nf4View& w, int64_t block, const Nf4Tables& tables) {
  if (w.absmax_u8 == nullptr) return w.absmax[block];
  return tables.dynamic_code[w.absmax_u8[block]] * w.absmax2[block / nf4_nested_block] + w.offset;
}

/// The 64 codes at `packed` (32 bytes), in order, times absmax.
CARAVAN_INLINE void dequantize_block(float* out, const uint8_t* packed, float absmax, const Nf4Tables& tables) {
#if defined(__AVX512F__)
  const __m512 code = _mm512_load_ps(tables.code);
  const __m512 scale = _mm512_set1_ps(absmax);
  for (int part = 0; part < 2; ++part) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + 16 * part));
    const __m128i high = _mm_srli_epi16(bytes, 4);  // the permutation below ignores bits 4 and up
    const __m512i first = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(high, bytes));
    const __m512i second = _mm512_cvtepu8_epi32(_mm_unpackhi_epi8(high, bytes));
    _mm512_storeu_ps(out + 32 * part, _mm512_mul_ps(_mm512_permutexvar_ps(first, code), scale));
    _mm512_storeu_ps(out + 32 * part + 16, _mm512_mul_ps(_mm512_permutexvar_ps(second, code), scale));
  }
#elif defined(__AVX2__)
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed));
  const __m256i low = _mm256_and_si256(bytes, nibble);
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
  const __m256 scale = _mm256_set1_ps(absmax);
  __m256i plane[4];
  for (int b = 0; b < 4; ++b) {
    plane[b] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(tables.byte_plane[b])));
  }
  // In each 128-bit lane: bytes 8 half .. 8 half + 7 of that lane's 16, so elements 16 half .. of its 32.
  for (int half = 0; half < 2; ++half) {
    const __m256i index = half == 0 ? _mm256_unpacklo_epi8(high, low) : _mm256_unpackhi_epi8(high, low);
    const __m256i b0 = _mm256_shuffle_epi8(plane[0], index);
    const __m256i b1 = _mm256_shuffle_epi8(plane[1], index);
    const __m256i b2 = _mm256_shuffle_epi8(plane[2], index);
    const __m256i b3 = _mm256_shuffle_epi8(plane[3], index);
    for (int quarter = 0; quarter < 2; ++quarter) {
      const __m256i lower = quarter == 0 ? _mm256_unpacklo_epi8(b0, b1) : _mm256_unpackhi_epi8(b0, b1);
      const __m256i upper = quarter == 0 ? _mm256_unpacklo_epi8(b2, b3) : _mm256_unpackhi_epi8(b2, b3);
      const __m256i four = _mm256_unpacklo_epi16(lower, upper);
      const __m256i next = _mm256_unpackhi_epi16(lower, upper);
      float* at = out + 16 * half + 8 * quarter;
      _mm256_storeu_ps(at, _mm256_mul_ps(_mm256_castsi256_ps(_mm256_permute2x128_si256(four, next, 0x20)), scale));
      _mm256_storeu_ps(at + 32, _mm256_mul_ps(_mm256_castsi256_ps(_mm256_permute2x128_si256(four, next, 0x31)), scale));
    }
  }
#else
  for (int i = 0; i < 32; ++i) {
    out[2 * i] = tables.code[packed[i] >> 4] * absmax;
    out[2 * i + 1] = tables.code[packed[i] & 15] * absmax;
  }
#endif
}

void dequantize(float* out, const Nf4View& w, int64_t first, int64_t count, const Nf4Tables& tables) {
  int64_t i = first;
  const int64_t end = first + count;
  while (i < end) {
    const int64_t block = i / nf4_block;
    const float absmax = nf4_absmax(w, block, tables);
    if (i == block * nf4_block && end - i >= nf4_block) {
      dequantize_block(out, w.packed + i / 2, absmax, tables);
      i += nf4_block;
      out += nf4_block;
      continue;
    }
    const int64_t block_end = (block + 1) * nf4_block < end ? (block + 1) * nf4_block : end;
    for (; i < block_end; ++i) {
      const uint8_t byte = w.packed[i / 2];
      *out++ = tables.code[i % 2 == 0 ? byte >> 4 : byte & 15] * absmax;
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Rows of an operand as fp32

template <typename T>
CARAVAN_INLINE void convert_run(float* out, const T* in, int64_t count, bool round) {
  int64_t i = 0;
  for (; i + Vec::width <= count; i += Vec::width) {
    const Vec value = load(in + i);
    store(out + i, round ? round_to_bf16(value) : value);
  }
  for (; i < count; ++i) out[i] = round ? widen(narrow(widen(in[i]))) : widen(in[i]);
}

/// out (count) = elements [first, first + count) of the operand in memory order.
CARAVAN_INLINE void read_run(float* out, const Operand& x, int64_t first, int64_t count, const Nf4Tables& tables) {
  switch (x.type) {
    case OperandType::f32: convert_run(out, static_cast<const float*>(x.data) + first, count, x.round_to_bf16); break;
    case OperandType::bf16: convert_run(out, static_cast<const bf16_bits*>(x.data) + first, count, false); break;
    case OperandType::nf4:
      dequantize(out, *x.nf4, first, count, tables);
      if (x.round_to_bf16) convert_run(out, out, count, true);
      break;
  }
}

bool needs_staging(const Operand& x) { return x.type != OperandType::f32 || x.round_to_bf16 || !x.k_contiguous; }

/// Elements [i0, i1) x [k0, k0 + kc) as fp32 in the operand's own order: out[i * stride + k] or out[k * stride + i].
void stage_operand(float* out, int64_t stride, const Operand& x, int64_t i0, int64_t i1, int64_t k0, int64_t kc,
                   const Nf4Tables& tables) {
  if (x.k_contiguous) {
    for (int64_t i = i0; i < i1; ++i) read_run(out + (i - i0) * stride, x, i * x.ld + k0, kc, tables);
  } else {
    for (int64_t k = 0; k < kc; ++k) read_run(out + k * stride, x, (k0 + k) * x.ld + i0, i1 - i0, tables);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Panels of B

/// Columns [j0, j1) of B, at most column_group, as panels of kc * panel_columns floats each.
void pack_columns(float* packed, float* staged, const Operand& b, int64_t j0, int64_t j1, int64_t k0, int64_t kc,
                  const Nf4Tables& tables) {
  const bool direct = b.type == OperandType::f32 && !b.round_to_bf16;
  const float* in = static_cast<const float*>(b.data) + (b.k_contiguous ? j0 * b.ld + k0 : k0 * b.ld + j0);
  int64_t ld = b.ld;
  if (!direct) {
    ld = b.k_contiguous ? max_block_k : column_group;
    stage_operand(staged, ld, b, j0, j1, k0, kc, tables);
    in = staged;
  }
  for (int64_t j = 0; j < j1 - j0; j += panel_columns) {
    const int64_t columns = j + panel_columns < j1 - j0 ? panel_columns : j1 - j0 - j;
    if (b.k_contiguous) {
      pack_transposed(packed + j * kc, in + j * ld, ld, columns, kc);
    } else {
      pack_straight(packed + j * kc, in + j, ld, columns, kc);
    }
  }
}

}  // namespace
}  // namespace caravan::cpu::CARAVAN_ISA
