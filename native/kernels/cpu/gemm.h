// General matrix product C = scale * A B (+ bias) (+ C) on blocks that fit the caches (Goto & van de Geijn, "Anatomy of
// high-performance matrix multiplication", 2008), and its counterpart for a few rows of A.
//
// Every element of C is a sum over blocks of k in their order, each a chain of fused multiply-adds from zero, rounded to
// C's type once at the end. (Where bf16 meets bf16 and the processor has AVX512_BF16 it is one chain of dot products of
// pairs.) The blocks depend on K alone, so neither threads nor neighbours nor the number of rows change a bit of it; and
// short chains round less than long ones.
#pragma once

#include <cstdint>

#include "kernels/exec.h"
#include "kernels/nf4.h"

namespace caravan::cpu {

/// NF4's tables as vector code wants them.
struct Nf4Tables {
  alignas(64) float code[16];
  alignas(64) uint8_t byte_plane[4][16];  // byte_plane[b][i] = byte b of code[i]
  const float* dynamic_code;              // (256)
};

enum class OperandType : uint8_t { f32, bf16, nf4 };

/// A matrix seen as (outer, K): outer is C's rows for A and C's columns for B. Element (i, k) lies at i * ld + k when
/// `k_contiguous`, else at k * ld + i. NF4 counts elements from the start of the quantised weight (ld = its columns).
struct Operand {
  OperandType type = OperandType::f32;
  bool k_contiguous = true;
  bool round_to_bf16 = false;  // values are rounded to bf16 before they multiply
  const void* data = nullptr;
  const Nf4View* nf4 = nullptr;
  int64_t ld = 0;
};

struct Gemm {
  Operand a;
  Operand b;
  void* c = nullptr;  // (m, n), row-major
  bool c_is_bf16 = false;
  bool accumulate = false;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  float scale = 1.0f;
  const float* bias = nullptr;  // (n) or null
  const Nf4Tables* tables = nullptr;
};

/// What one instruction set brings.
struct GemmKernels {
  /// Rows [i0, i1) and columns [j0, j1) of C; j0 is a multiple of 64. At most `max_tile_rows` by `max_tile_columns`.
  void (*tile)(const Gemm& gemm, int64_t i0, int64_t i1, int64_t j0, int64_t j1, float* scratch);

  /// The same where both operands are, or are to be rounded to, bf16; null where the set has no instruction for it. Each
  /// element of C is then one chain over pairs of k (gemm_bf16.inl).
  void (*tile_bf16)(const Gemm& gemm, int64_t i0, int64_t i1, int64_t j0, int64_t j1, float* scratch);

  /// The path of at most `skinny_rows` rows, which reads each weight once and needs both operands k-contiguous. The sum
  /// over k runs in vector lanes: another order than `tile`'s, but again the same for every row and any `m`.
  /// First `skinny_prepare` writes A, ordered as B's type wants it, to `a` (m, skinny_ld(k)); then columns [j0, j1).
  void (*skinny_prepare)(const Gemm& gemm, float* a);
  void (*skinny_columns)(const Gemm& gemm, const float* a, int64_t j0, int64_t j1, float* scratch);

  /// out (count) = elements [first, first + count) of an NF4 weight.
  void (*dequantize)(float* out, const Nf4View& weight, int64_t first, int64_t count, const Nf4Tables& tables);
};

constexpr int64_t max_tile_rows = 240;
constexpr int64_t max_tile_columns = 384;
constexpr int64_t max_block_k = 192;  // also the longest chain of additions; panels of A and B share an L1 of 32 KiB
constexpr int64_t column_group = 64;  // columns of B packed at a time; one block of NF4 where K runs down the rows
constexpr int64_t skinny_rows = 8;

constexpr int64_t skinny_ld(int64_t k) { return (k + 63) / 64 * 64; }
/// Floats that `tile` needs: A staged, B staged and packed, C between the blocks of k.
constexpr int64_t tile_scratch_floats() {
  return max_tile_rows * max_block_k + 2 * column_group * max_block_k + max_tile_rows * max_tile_columns + 1024;
}
constexpr int64_t skinny_scratch_floats(int64_t k) { return 5 * skinny_ld(k) + 64; }

/// Runs independent products together, so that small ones share the threads. Each writes its own C.
void gemm_run(const Exec& exec, const Gemm* products, int64_t count);
const GemmKernels& gemm_kernels();
const Nf4Tables& nf4_tables();

}  // namespace caravan::cpu
