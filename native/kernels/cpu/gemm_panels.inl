// Panels (k, panel_columns) of fp32 as the micro-kernel reads them, from rows that lie across or along them.
#pragma once

#include "kernels/cpu/gemm_micro.inl"

namespace caravan::cpu::CARAVAN_ISA {
namespace {

/// out[k * panel_columns + i] = in[i * ld + k] for Vec::width rows i and as many k.
CARAVAN_INLINE void transpose_square(float* out, const float* in, int64_t ld) {
#if defined(__AVX512F__)
  __m512 r[16];
  __m512 t[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(in + i * ld);
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    _mm512_storeu_ps(out + i * panel_columns, _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88));
    _mm512_storeu_ps(out + (i + 8) * panel_columns, _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd));
    _mm512_storeu_ps(out + (i + 4) * panel_columns, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88));
    _mm512_storeu_ps(out + (i + 12) * panel_columns, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd));
  }
#elif defined(__AVX2__)
  __m256 r[8];
  __m256 t[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(in + i * ld);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(out + i * panel_columns, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(out + (i + 4) * panel_columns, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
#else
  for (int i = 0; i < Vec::width; ++i) {
    for (int k = 0; k < Vec::width; ++k) out[k * panel_columns + i] = in[i * ld + k];
  }
#endif
}

/// One panel from `columns` rows of fp32 (column j of B is row j of `in`); missing columns become zero.
void pack_transposed(float* panel, const float* in, int64_t ld, int64_t columns, int64_t kc) {
  int64_t done = 0;
  for (; done + Vec::width <= columns; done += Vec::width) {
    int64_t k = 0;
    for (; k + Vec::width <= kc; k += Vec::width) {
      transpose_square(panel + k * panel_columns + done, in + done * ld + k, ld);
    }
    for (; k < kc; ++k) {
      for (int64_t j = done; j < done + Vec::width; ++j) panel[k * panel_columns + j] = in[j * ld + k];
    }
  }
  for (int64_t k = 0; done < panel_columns && k < kc; ++k) {
    for (int64_t j = done; j < columns; ++j) panel[k * panel_columns + j] = in[j * ld + k];
    for (int64_t j = columns; j < panel_columns; ++j) panel[k * panel_columns + j] = 0.0f;
  }
}

/// One panel from rows that already lie along the columns.
void pack_straight(float* panel, const float* in, int64_t ld, int64_t columns, int64_t kc) {
  if (columns == panel_columns) {
    for (int64_t k = 0; k < kc; ++k) {
      store(panel + k * panel_columns, load(in + k * ld));
      store(panel + k * panel_columns + Vec::width, load(in + k * ld + Vec::width));
    }
    return;
  }
  for (int64_t k = 0; k < kc; ++k) {
    for (int64_t j = 0; j < columns; ++j) panel[k * panel_columns + j] = in[k * ld + j];
    for (int64_t j = columns; j < panel_columns; ++j) panel[k * panel_columns + j] = 0.0f;
  }
}

}  // namespace
}  // namespace caravan::cpu::CARAVAN_ISA
