// The one product behind every function of matmul.h: C (m, n) = scale * A B (+ bias) (+ C), whole or by groups of rows
// sorted by group. Three ways to compute it: cuBLASLt (cublaslt.h), our own on the tensor cores for bf16 (gemm_mma.cu;
// on Hopper gemm_wgmma.cu), and our own in true fp32 (gemm_simt.cu). Every sum is in fp32, rounded once to C's type.
//
// Our own kernels add k in an order that depends on k alone, so a row's bits do not depend on the other rows; cuBLASLt
// chooses an algorithm per shape, the same at every call and run, so the same shape gives the same bits.
#pragma once

#include "kernels/exec.h"

namespace caravan::cuda {

/// A matrix seen as (outer, K): outer is C's rows for A and C's columns for B. Element (i, k) lies at i * ld + k when
/// `k_contiguous`, else at k * ld + i.
struct Operand {
  ConstPtr data;
  int64_t ld = 0;
  bool k_contiguous = true;
};

enum class GroupedBy : uint8_t { none, rows, k };

/// Grouped by rows, rows [offsets[g], offsets[g + 1]) of A and C meet B's g-th (n, k) matrix; m is the rows of all.
/// Grouped by k, those rows are the k range of A and B (neither k-contiguous) whose product goes to C's g-th (m, n)
/// matrix; k is the rows of all. The offsets lie on the device: the host does not know them.
struct Gemm {
  Operand a;
  Operand b;
  Ptr c;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  float scale = 1.0f;
  bool accumulate = false;
  const float* bias = nullptr;  // (n) or null
  GroupedBy grouped_by = GroupedBy::none;
  const int32_t* offsets = nullptr;  // (groups + 1), device
  int64_t groups = 0;
};

/// Both operands bf16.
void gemm_mma(const Exec& exec, const Gemm& gemm);
/// Both operands bf16; false where this GPU is no Hopper, or rows are not 16-byte aligned.
bool gemm_wgmma(const Exec& exec, const Gemm& gemm);
/// Any mixture of f32 and bf16, multiplied and added in fp32.
void gemm_simt(const Exec& exec, const Gemm& gemm);

}  // namespace caravan::cuda
