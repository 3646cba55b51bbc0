// Hopper's own instructions as attention uses them: tensor maps, bulk copies that complete on barriers in shared memory,
// and products of a warpgroup (128 threads). Tiles lie in shared memory as blocks of 64 channels, a row of a block being
// 128 bytes in the 128-byte swizzle. What includes this compiles for every architecture; the bodies exist for sm_90a.
#pragma once

#include <cuda.h>

#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/hopper.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define CARAVAN_SM90A 1
#endif

namespace caravan::cuda {

// ---------------------------------------------------------------------------------------------------------------------
// Host

/// Tensor map of an array (rows, heads, dim) whose boxes are `box_rows` rows of 64 channels of one head.
CUtensorMap attention_map(const bf16* array, int64_t rows, int64_t heads, int64_t dim, int box_rows);

/// Whether the kernels for Hopper can be used: the device is one, this build holds their code, and head_dim is theirs.
bool attention_for_sm90(const Exec& exec, int64_t head_dim);

void attention_forward_sm90(const Exec& exec, bf16* out, float* lse, const bf16* q, const bf16* k, const bf16* v,
                            const int32_t* cu_seqlens, int64_t sequences, int64_t n, int64_t past,
                            const AttentionShape& shape);

void attention_backward_sm90(const Exec& exec, bf16* dq, bf16* dk, bf16* dv, const bf16* dout, const bf16* q,
                             const bf16* k, const bf16* v, const bf16* out, const float* lse, const int32_t* cu_seqlens,
                             int64_t sequences, int64_t n, const AttentionShape& shape);

#ifdef CARAVAN_SM90A

// ---------------------------------------------------------------------------------------------------------------------
// Barriers and copies

/// A ring of stages: which one comes next, and the parity of its barriers.
template <int stages>
struct Ring {
  int stage = 0, parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

/// One box: channels from `channel` on of `head`, rows from `row` on; rows outside the array become zeros.
__device__ __forceinline__ void copy_box(void* to, const CUtensorMap* map, uint64_t* barrier, int channel, int head,
                                         int row) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
          "r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(channel), "r"(head), "r"(row)
      : "memory");
}

/// All channels of `rows` rows: dim / 64 blocks behind one another.
template <int dim, int rows>
__device__ __forceinline__ void copy_box_rows(bf16* to, const CUtensorMap* map, uint64_t* barrier, int head, int row) {
#pragma unroll
  for (int c = 0; c < dim / 64; ++c) copy_box(to + c * rows * 64, map, barrier, 64 * c, head, row);
}

__device__ __forceinline__ void named_sync(int id, int count) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(count) : "memory");
}
__device__ __forceinline__ void named_arrive(int id, int count) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(count) : "memory");
}

// ---------------------------------------------------------------------------------------------------------------------
// Products

/// Keeps the compiler from moving uses of an accumulator across a wait.
template <int count>
__device__ __forceinline__ void hold(float (&x)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) asm volatile("" : "+f"(x[i])::"memory");
}

/// Where an operand lies. K-major: channels are summed over, rows 128 bytes apart in groups of eight.
__device__ __forceinline__ uint64_t describe_rows(const bf16* tile) { return hopper::matrix_descriptor(tile, 16); }
/// MN-major: rows are summed over; blocks of 64 channels are `rows` * 128 bytes apart.
__device__ __forceinline__ uint64_t describe_columns(const bf16* tile, int rows) {
  return hopper::matrix_descriptor(tile, rows * 128);
}

#define CARAVAN_D32                                                                                            \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define CARAVAN_D64                                                                                            \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "  \
  "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define CARAVAN_F8(d, n)                                                                                      \
  "+f"(d[n]), "+f"(d[n + 1]), "+f"(d[n + 2]), "+f"(d[n + 3]), "+f"(d[n + 4]), "+f"(d[n + 5]), "+f"(d[n + 6]), \
      "+f"(d[n + 7])
#define CARAVAN_F32(d, n) CARAVAN_F8(d, n), CARAVAN_F8(d, n + 8), CARAVAN_F8(d, n + 16), CARAVAN_F8(d, n + 24)

/// d (64 x columns) = or += a b^T for 16 channels of K-major tiles. Lane l of warp w holds of d, for every eight columns,
/// what mma.sync's accumulator holds of row 16 w.
template <int b_major>
__device__ __forceinline__ void product(float (&d)[64], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " CARAVAN_D64 ", %64, %65, p, 1, 1, 0, %67;\n}"
      : CARAVAN_F32(d, 0), CARAVAN_F32(d, 32)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(b_major));
}
template <int b_major>
__device__ __forceinline__ void product(float (&d)[32], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " CARAVAN_D32 ", %32, %33, p, 1, 1, 0, %35;\n}"
      : CARAVAN_F32(d, 0)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(b_major));
}
/// d += a b with a in registers and b summed over its rows (MN-major).
__device__ __forceinline__ void product_along(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " CARAVAN_D64
               ", {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
               : CARAVAN_F32(d, 0), CARAVAN_F32(d, 32)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void product_along(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " CARAVAN_D32
               ", {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
               : CARAVAN_F32(d, 0)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/// d = or += a b^T with a in registers, b K-major.
__device__ __forceinline__ void product_across(float (&d)[32], const uint32_t (&a)[4], uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " CARAVAN_D32 ", {%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}"
      : CARAVAN_F32(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));
}

/// Starts scores (64 x rows) = a b^T over all channels, a in registers, b a tile of `rows` rows.
template <int dim, int rows, int count>
__device__ __forceinline__ void start_across(float (&scores)[count], const uint32_t (&a)[dim / 16][4], const bf16* b) {
  const uint64_t right = describe_rows(b);
#pragma unroll
  for (int channel = 0; channel < dim; channel += 16) {
    const int block = channel / 64, within = channel % 64 * 2;
    product_across(scores, a[channel / 16], right + ((block * rows * 128 + within) >> 4), channel > 0);
  }
}

/// Starts scores (64 x columns) = a b^T; a's 64 rows and b's rows are parts of tiles of a_rows and b_rows rows.
template <int dim, int a_rows, int b_rows, int count>
__device__ __forceinline__ void start_across(float (&scores)[count], const bf16* a, const bf16* b) {
  const uint64_t left = describe_rows(a), right = describe_rows(b);
#pragma unroll
  for (int channel = 0; channel < dim; channel += 16) {
    const int block = channel / 64, within = channel % 64 * 2;
    product<0>(scores, left + ((block * a_rows * 128 + within) >> 4), right + ((block * b_rows * 128 + within) >> 4),
               channel > 0);
  }
}

/// Starts sums (64 x dim) += weights b, over the `rows` rows of tile b.
template <int rows, int count>
__device__ __forceinline__ void start_along(float (&sums)[count], const uint32_t (&weights)[rows / 16][4],
                                            const bf16* b) {
  const uint64_t right = describe_columns(b, rows);
#pragma unroll
  for (int i = 0; i < rows / 16; ++i) product_along(sums, weights[i], right + (i * 16 * 128 >> 4));
}

/// An accumulator as the left operand of the next product, rounded to bf16.
template <int count>
__device__ __forceinline__ void round_weights(uint32_t (&weights)[count / 8][4], const float (&x)[count]) {
#pragma unroll
  for (int i = 0; i < count / 8; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) weights[i][j] = pack_bf16(x[8 * i + 2 * j], x[8 * i + 2 * j + 1]);
  }
}

/// Writes one row's half of an accumulator (64 x dim): the four lanes that share a row change pieces, so that each
/// writes 16 bytes at a time.
template <int dim, int count>
__device__ __forceinline__ void store_row(bf16* row, const float (&sums)[count], int half, float scale, bool real) {
  const int lane = threadIdx.x % 4;
#pragma unroll
  for (int c = 0; c < dim / 32; ++c) {
    uint32_t x[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = 4 * (4 * c + i) + 2 * half;
      x[i] = pack_bf16(sums[at] * scale, sums[at + 1] * scale);
    }
    // Transpose of a 4 x 4 of words in two exchanges.
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const uint32_t got = __shfl_xor_sync(0xffffffffu, lane & 1 ? x[i] : x[i + 1], 1);
      if (lane & 1) {
        x[i] = got;
      } else {
        x[i + 1] = got;
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t got = __shfl_xor_sync(0xffffffffu, lane & 2 ? x[i] : x[i + 2], 2);
      if (lane & 2) {
        x[i] = got;
      } else {
        x[i + 2] = got;
      }
    }
    if (real) *reinterpret_cast<uint4*>(row + 32 * c + 8 * lane) = make_uint4(x[0], x[1], x[2], x[3]);
  }
}

#endif  // CARAVAN_SM90A

}  // namespace caravan::cuda
