// LoRA's products at the narrow side as kernels that read x (N, C) once for up to three projections, mask it on the way
// to the tensor cores and never write a masked copy. What they do not fit (f32, odd widths) is made of other products.
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/tensor_cores.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/lora_composed.h"

namespace caravan::cuda {

namespace {

constexpr int threads = 256;
constexpr int tile_r = 64;  // of the rank that one block takes

/// What a kernel is told of its parts: u is written by the first kernel and read by the others.
struct Parts {
  const bf16* a[max_lora_parts];
  const uint32_t* kept[max_lora_parts];
  bf16* u[max_lora_parts];
  int64_t u_row[max_lora_parts];
  float* da[max_lora_parts];
};

/// Both halves of a word's pair number `pair` spread over the halves of a bf16 pair: all ones where kept.
__device__ __forceinline__ uint32_t pair_mask(uint32_t word, int pair) {
  // prmt with the sign bits of bytes 1 and 3 spread; __byte_perm knows no signs.
  uint32_t mask;
  asm("prmt.b32 %0, %1, 0, 0xbb99;" : "=r"(mask) : "r"(word << (15 - pair)));
  return mask;
}

/// Element offset of a 16-byte chunk in a tile whose lines hold `chunks` of them, so that the eight lines which ldmatrix
/// reads at a time lie in different banks.
template <int chunks>
__device__ __forceinline__ int chunk_at(int line, int chunk) {
  return (line * chunks + (chunk ^ (line & 7))) * 8;
}

/// The fragment of 16 x 16 elements (16 outer, 16 k) at (outer, k); lines of the tile run along k where `k_contiguous`.
/// As load_fragment of gemm_mma.cu: A's fragments go down the rows first, B's along k first.
template <int chunks, bool k_contiguous, bool is_a>
__device__ __forceinline__ void fragment(uint32_t (&f)[4], const bf16* tile, int outer, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8, row = lane % 8;
  const int along_k = is_a ? matrix >> 1 : matrix & 1, along_outer = is_a ? matrix & 1 : matrix >> 1;
  if constexpr (k_contiguous) {
    load_matrices(f, tile + chunk_at<chunks>(outer + along_outer * 8 + row, k / 8 + along_k));
  } else {
    load_matrices_transposed(f, tile + chunk_at<chunks>(k + along_k * 8 + row, outer / 8 + along_outer));
  }
}

/// 4 bytes from global to shared memory, or zeros where `real` is 0.
__device__ __forceinline__ void copy_4(void* to, const void* from, int real) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(real));
}

/// (lines, 8 * chunks) of a matrix into a tile, zeros beyond `line_end` and `end`; rows and `first` are 16-byte aligned.
template <int lines, int chunks, int by = threads>
__device__ __forceinline__ void load_tile(bf16* tile, const bf16* from, int64_t ld, int64_t line, int64_t line_end,
                                          int64_t first, int64_t end) {
#pragma unroll
  for (int i = 0; i < lines * chunks / by; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * by, l = at / chunks, chunk = at % chunks;
    const bool there = line + l < line_end && first + chunk * 8 < end;
    copy_16(tile + chunk_at<chunks>(l, chunk), there ? from + (line + l) * ld + first + chunk * 8 : from,
            there ? 16 : 0);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// u_p = scale * drop_p(x) A_p^T. A block takes 64 tokens and 64 of the rank of each part; four warps take the first half
// of each step's channels and four the second.

constexpr int forward_rows = 64, forward_k = 64, forward_stages = 4;
constexpr int forward_tile = forward_rows * forward_k;
static_assert(forward_rows == tile_r);

template <int parts>
constexpr int forward_stage_bytes() {
  return 2 * forward_tile * (1 + parts) + parts * forward_rows * 2 * 4;
}

template <int parts, bool masked>
__global__ void __launch_bounds__(threads, 1) forward_kernel(const __grid_constant__ Parts p, const bf16* x,
                                                             int64_t x_row, int64_t n, int c, int r, float scale) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * forward_rows;
  const int col = static_cast<int>(blockIdx.y) * tile_r;
  const int steps = (c + forward_k - 1) / forward_k;
  const int words = static_cast<int>(kept_words(c));
  const auto x_tile = [&](int step) {
    return reinterpret_cast<bf16*>(shared + step % forward_stages * forward_stage_bytes<parts>());
  };
  const auto load_stage = [&](int step) {
    if (step < steps) {
      bf16* const tile = x_tile(step);
      const int k = step * forward_k;
      load_tile<forward_rows, 8>(tile, x, x_row, row, n, k, c);
#pragma unroll
      for (int i = 0; i < parts; ++i) load_tile<tile_r, 8>(tile + (1 + i) * forward_tile, p.a[i], c, col, r, k, c);
      if constexpr (masked) {
        auto* const bits = reinterpret_cast<uint32_t*>(tile + (1 + parts) * forward_tile);
        for (int at = static_cast<int>(threadIdx.x); at < parts * forward_rows * 2; at += threads) {
          const int part = at / (2 * forward_rows), line = at / 2 % forward_rows, word = k / 32 + at % 2;
          const bool there = row + line < n && word < words;
          const uint32_t* const from = there ? p.kept[part] + (row + line) * words + word : p.kept[part];
          copy_4(bits + at, from, there ? 4 : 0);
        }
      }
    }
    commit_copies();
  };

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int half = warp / 4, m = warp % 4 / 2 * 32, o = warp % 2 * 32;
  float sums[parts][2][4][4] = {};
#pragma unroll
  for (int s = 0; s < forward_stages - 1; ++s) load_stage(s);
  for (int step = 0; step < steps; ++step) {
    wait_copies<forward_stages - 2>();
    __syncthreads();
    load_stage(step + forward_stages - 1);
    const bf16* const tile = x_tile(step);
    const auto* const bits = reinterpret_cast<const uint32_t*>(tile + (1 + parts) * forward_tile);
    uint32_t word[parts][2][2];
    if constexpr (masked) {
#pragma unroll
      for (int i = 0; i < parts; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          word[i][j / 2][j % 2] = bits[(i * forward_rows + m + 8 * j + lane / 4) * 2 + half];
        }
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int k = half * 32 + h * 16;
      uint32_t fx[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) fragment<8, true, true>(fx[i], tile, m + 16 * i, k);
#pragma unroll
      for (int part = 0; part < parts; ++part) {
        uint32_t fa[2][4];
#pragma unroll
        for (int j = 0; j < 2; ++j) fragment<8, true, false>(fa[j], tile + (1 + part) * forward_tile, o + 16 * j, k);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          uint32_t f[4];
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            f[q] = fx[i][q];
            if constexpr (masked) f[q] &= pair_mask(word[part][i][q % 2], h * 8 + lane % 4 + q / 2 * 4);
          }
#pragma unroll
          for (int j = 0; j < 4; ++j) multiply_add(sums[part][i][j], f, fa[j / 2][j % 2 * 2], fa[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }

  // The second half's sums come to the first's through shared memory.
  wait_copies<0>();
  __syncthreads();
  float* const passed = reinterpret_cast<float*>(shared) + warp % 4 * 32 * 32 * parts + lane;
  if (half == 1) {
#pragma unroll
    for (int i = 0; i < 32 * parts; ++i) passed[i * 32] = sums[i / 32][i / 16 % 2][i / 4 % 4][i % 4];
  }
  __syncthreads();
  if (half == 1) return;
#pragma unroll
  for (int part = 0; part < parts; ++part) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const float sum = sums[part][i][j][q] + passed[(((part * 2 + i) * 4 + j) * 4 + q) * 32];
          const int64_t to_row = row + m + 16 * i + q / 2 * 8 + lane / 4;
          const int to_col = col + o + 8 * j + lane % 4 * 2 + q % 2;
          if (to_row < n && to_col < r) p.u[part][to_row * p.u_row[part] + to_col] = rounded<bf16>(scale * sum);
        }
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// da_p += u_p^T drop_p(x). A block takes 64 of the rank and 128 channels over its share of the tokens, 64 at a time; the
// masked tiles of x go through registers into shared memory.

constexpr int weight_k = 64, weight_c = 128;
constexpr int weight_x_tile = weight_k * weight_c, weight_u_tile = weight_k * tile_r;

template <int parts>
constexpr int weight_stage_elements() {
  return parts * (weight_x_tile + weight_u_tile);
}

template <int parts, bool masked>
__global__ void __launch_bounds__(threads, 1)
    weight_kernel(const __grid_constant__ Parts p, float* partial, const bf16* x, int64_t x_row, int64_t n, int c,
                  int r, int64_t tokens_each) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int channel = static_cast<int>(blockIdx.x) * weight_c, col = static_cast<int>(blockIdx.z) * tile_r;
  const int64_t first = blockIdx.y * tokens_each, end = first + tokens_each < n ? first + tokens_each : n;
  const int words = static_cast<int>(kept_words(c));
  const int steps = first < end ? static_cast<int>((end - first + weight_k - 1) / weight_k) : 0;
  const auto stage = [&](int step) {
    return reinterpret_cast<bf16*>(shared) + step % 2 * weight_stage_elements<parts>();
  };

  constexpr int each = weight_x_tile / 8 / threads;
  uint4 values[each];
  uint32_t word[parts][each];
  const auto fetch = [&](int step) {
    const int64_t token = first + static_cast<int64_t>(step) * weight_k;
#pragma unroll
    for (int i = 0; i < each; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * threads;
      const int64_t line = token + at / 16;
      const int column = channel + at % 16 * 8;
      const bool there = line < end && column < c;
      values[i] = there ? *reinterpret_cast<const uint4*>(x + line * x_row + column) : uint4{0, 0, 0, 0};
      if constexpr (masked) {
#pragma unroll
        for (int part = 0; part < parts; ++part) {
          word[part][i] = there ? p.kept[part][line * words + column / 32] : 0;
        }
      }
    }
    bf16* const tile = stage(step) + parts * weight_x_tile;
#pragma unroll
    for (int part = 0; part < parts; ++part) {
      load_tile<weight_k, 8>(tile + part * weight_u_tile, p.u[part], r, token, end, col, r);
    }
    commit_copies();
  };
  const auto put = [&](int step) {
    bf16* const tile = stage(step);
#pragma unroll
    for (int i = 0; i < each; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * threads, line = at / 16, chunk = at % 16;
#pragma unroll
      for (int part = 0; part < parts; ++part) {
        uint4 v = values[i];
        if constexpr (masked) {
          const int pair = chunk % 4 * 4;
          v.x &= pair_mask(word[part][i], pair);
          v.y &= pair_mask(word[part][i], pair + 1);
          v.z &= pair_mask(word[part][i], pair + 2);
          v.w &= pair_mask(word[part][i], pair + 3);
        }
        *reinterpret_cast<uint4*>(tile + part * weight_x_tile + chunk_at<16>(line, chunk)) = v;
      }
    }
    wait_copies<0>();
    __syncthreads();
  };

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int m = warp / 4 * 32, o = warp % 4 * 32;
  float sums[parts][2][4][4] = {};
  if (steps > 0) {
    fetch(0);
    put(0);
  }
  for (int step = 0; step < steps; ++step) {
    // The other stage was last read before the barrier in put.
    if (step + 1 < steps) fetch(step + 1);
    const bf16* const tile = stage(step);
#pragma unroll
    for (int k = 0; k < weight_k; k += 16) {
#pragma unroll
      for (int part = 0; part < parts; ++part) {
        uint32_t fu[2][4], fx[2][4];
        const bf16* const u_tile = tile + parts * weight_x_tile + part * weight_u_tile;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          fragment<8, false, true>(fu[i], u_tile, m + 16 * i, k);
          fragment<16, false, false>(fx[i], tile + part * weight_x_tile, o + 16 * i, k);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            multiply_add(sums[part][i][j], fu[i], fx[j / 2][j % 2 * 2], fx[j / 2][j % 2 * 2 + 1]);
          }
        }
      }
    }
    if (step + 1 < steps) put(step + 1);
  }

#pragma unroll
  for (int part = 0; part < parts; ++part) {
    float* const to =
        partial == nullptr ? p.da[part] : partial + (static_cast<int64_t>(blockIdx.y) * parts + part) * r * c;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int line = col + m + 8 * i + lane / 4;
      if (line >= r) continue;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int column = channel + o + 8 * j + lane % 4 * 2;
        if (column >= c) continue;
        float2* const at = reinterpret_cast<float2*>(to + static_cast<int64_t>(line) * c + column);
        float2 v = {sums[part][i / 2][j][i % 2 * 2], sums[part][i / 2][j][i % 2 * 2 + 1]};
        if (partial == nullptr) {
          v.x += at->x;
          v.y += at->y;
        }
        *at = v;
      }
    }
  }
}

/// da_p += its partial sums, in order.
__global__ void __launch_bounds__(threads)
    weight_sum_kernel(const __grid_constant__ Parts p, const float* partial, int splits, int64_t count) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x) * 4;
  if (i >= count) return;
  float* const da = p.da[blockIdx.y] + i;
  float4 sum = *reinterpret_cast<const float4*>(da);
  for (int s = 0; s < splits; ++s) {
    const float4 v = *reinterpret_cast<const float4*>(partial + (int64_t{s} * gridDim.y + blockIdx.y) * count + i);
    sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
  }
  *reinterpret_cast<float4*>(da) = sum;
}

// ---------------------------------------------------------------------------------------------------------------------
// dx += drop_p'(u_p A_p), one part after the other. A block takes 64 tokens and 128 channels, which stay in shared
// memory meanwhile.

constexpr int input_rows = 64, input_c = 128, input_k = 64, input_threads = 128;
constexpr int input_tile = input_rows * input_c, input_u_tile = input_rows * input_k, input_a_tile = input_k * input_c;
constexpr int input_words = input_c / 32;  // of one row's mask
constexpr int input_stage = input_u_tile + input_a_tile + 2 * input_rows * input_words;
/// Of products one after the other two are in shared memory at a time.
constexpr int input_bytes(int64_t tasks) { return 2 * (input_tile + (tasks > 1 ? 2 : 1) * input_stage); }

template <bool masked>
__global__ void __launch_bounds__(input_threads, 3)
    input_kernel(const __grid_constant__ Parts p, int parts, bf16* dx, int64_t n, int c, int r) {
  extern __shared__ __align__(128) unsigned char shared[];
  bf16* const tile = reinterpret_cast<bf16*>(shared);
  const int channel = static_cast<int>(blockIdx.x) * input_c;
  const int64_t row = static_cast<int64_t>(blockIdx.y) * input_rows;
  const int words = static_cast<int>(kept_words(c));
  const int per_part = (r + input_k - 1) / input_k, tasks = parts * per_part;
  const auto stage = [&](int task) { return tile + input_tile + task % 2 * input_stage; };
  const auto load_task = [&](int task) {
    if (task < tasks) {
      const int part = task / per_part, k = task % per_part * input_k;
      load_tile<input_rows, 8, input_threads>(stage(task), p.u[part], r, row, n, k, r);
      load_tile<input_k, 16, input_threads>(stage(task) + input_u_tile, p.a[part], c, k, r, channel, c);
      if constexpr (masked) {
        auto* const bits = reinterpret_cast<uint32_t*>(stage(task) + input_u_tile + input_a_tile);
#pragma unroll
        for (int at = static_cast<int>(threadIdx.x); at < input_rows * input_words; at += input_threads) {
          const int64_t line = row + at / input_words;
          const int word = channel / 32 + at % input_words;
          const bool there = line < n && word < words;
          copy_4(bits + at, there ? p.kept[part] + line * words + word : p.kept[part], there ? 4 : 0);
        }
      }
    }
    commit_copies();
  };
  load_tile<input_rows, 16, input_threads>(tile, dx, c, row, n, channel, c);
  load_task(0);
  load_task(1);

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int m = warp / 2 * 32, o = warp % 2 * 64;
  float sums[2][8][4] = {};
  for (int task = 0; task < tasks; ++task) {
    wait_copies<1>();
    __syncthreads();
#pragma unroll 2
    for (int k = 0; k < input_k; k += 16) {
      uint32_t fu[2][4], fa[4][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) fragment<8, true, true>(fu[i], stage(task), m + 16 * i, k);
#pragma unroll
      for (int j = 0; j < 4; ++j) fragment<16, false, false>(fa[j], stage(task) + input_u_tile, o + 16 * j, k);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) multiply_add(sums[i][j], fu[i], fa[j / 2][j % 2 * 2], fa[j / 2][j % 2 * 2 + 1]);
      }
    }
    if ((task + 1) % per_part == 0) {
      // Each thread has its own elements of the tile: no barrier between the parts.
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int line = m + 8 * i + lane / 4;
        const auto* const word =
            reinterpret_cast<const uint32_t*>(stage(task) + input_u_tile + input_a_tile) + line * input_words + o / 32;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          auto* const at = reinterpret_cast<uint32_t*>(tile + chunk_at<16>(line, o / 8 + j)) + lane % 4;
          const uint32_t before = *at;
          float first = sums[i / 2][j][i % 2 * 2], second = sums[i / 2][j][i % 2 * 2 + 1];
          if constexpr (masked) {
            const uint32_t product = pack_bf16(first, second) & pair_mask(word[j / 4], j % 4 * 4 + lane % 4);
            first = low_half(product), second = high_half(product);
          }
          *at = pack_bf16(low_half(before) + first, high_half(before) + second);
          sums[i / 2][j][i % 2 * 2] = sums[i / 2][j][i % 2 * 2 + 1] = 0.0f;
        }
      }
    }
    __syncthreads();
    load_task(task + 2);
  }
#pragma unroll
  for (int i = 0; i < input_tile / 8 / input_threads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * input_threads, line = at / 16, chunk = at % 16;
    if (row + line >= n || channel + chunk * 8 >= c) continue;
    *reinterpret_cast<uint4*>(dx + (row + line) * c + channel + chunk * 8) =
        *reinterpret_cast<const uint4*>(tile + chunk_at<16>(line, chunk));
  }
}

// ---------------------------------------------------------------------------------------------------------------------

__global__ void __launch_bounds__(threads)
    round_parts_kernel(bf16* out, const __grid_constant__ Parts p, int64_t count) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x) * 4;
  if (i >= count) return;
  float v[4];
  load(v, reinterpret_cast<const float*>(p.a[blockIdx.y]) + i);
  store(out + blockIdx.y * count + i, v);
}

/// Parts that one launch takes: three need more shared memory than some devices have.
int parts_together(const Exec& exec, int bytes_of_three) {
  return exec.cuda->max_shared_memory() < static_cast<size_t>(bytes_of_three) ? 1 : max_lora_parts;
}

/// Whether the kernels above take these: all parts masked or none, rows of 16-byte chunks.
bool fits(const LoraPart* parts, int count, ConstPtr x, int64_t x_row, int64_t n, int64_t c, int64_t r) {
  if (count < 1 || x.dtype != DType::bf16 || c % 8 != 0 || x_row % 8 != 0 || r % 8 != 0 || n * c * r == 0) {
    return false;
  }
  for (int i = 0; i < count; ++i) {
    if ((parts[i].kept == nullptr) != (parts[0].kept == nullptr) || parts[i].u.dtype != DType::bf16) return false;
    if (!aligned16(x.as<bf16>(), parts[i].u.as<bf16>(), static_cast<const bf16*>(parts[i].a.data))) return false;
    if (!aligned16(parts[i].da)) return false;
  }
  return true;
}

/// Weights in f32 are rounded into `rounded_a` first, which holds count * R * C elements.
Parts parts_of(const Exec& exec, const LoraPart* parts, int count, int64_t c, int64_t r, bf16* rounded_a) {
  Parts p = {};
  for (int i = 0; i < count; ++i) {
    p.a[i] = static_cast<const bf16*>(parts[i].a.data);
    p.kept[i] = parts[i].kept;
    p.u[i] = parts[i].u.as<bf16>();
    p.u_row[i] = parts[i].u_row == 0 ? r : parts[i].u_row;
    p.da[i] = parts[i].da;
  }
  if (rounded_a == nullptr) return p;
  const dim3 grid(blocks_for(r * c, int64_t{threads} * 4), static_cast<unsigned>(count));
  round_parts_kernel<<<grid, threads, 0, stream_of(exec)>>>(rounded_a, p, r * c);
  check_launch("lora: rounding of weights");
  for (int i = 0; i < count; ++i) p.a[i] = rounded_a + i * r * c;
  return p;
}

bf16* space_for_rounded(const Exec& exec, const LoraPart* parts, int count, int64_t c, int64_t r) {
  return parts[0].a.dtype == DType::bf16 ? nullptr : exec.cuda->workspace<bf16>(count * r * c);
}

template <int parts>
constexpr int forward_bytes() {
  return std::max(forward_stages * forward_stage_bytes<parts>(), 4 * 32 * 32 * parts * 4);
}
template <int parts>
constexpr int weight_bytes() {
  return 2 * 2 * weight_stage_elements<parts>();
}

template <typename Kernel>
void allow_shared(Kernel kernel, int bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "lora: shared memory");
}

/// f.operator()<parts, masked>().
template <typename F>
void for_parts(int count, bool masked, const F& f) {
  const auto with = [&]<int parts>() {
    masked ? f.template operator()<parts, true>() : f.template operator()<parts, false>();
  };
  if (count == 1) return with.template operator()<1>();
  if (count == 2) return with.template operator()<2>();
  with.template operator()<3>();
}

unsigned rank_tiles(int64_t r) { return static_cast<unsigned>((r + tile_r - 1) / tile_r); }

/// Shares of the tokens for which the blocks of a launch leave the fewest multiprocessors idle.
int64_t best_splits(int64_t tiles, int64_t n, int multiprocessors) {
  const int64_t most = std::min<int64_t>(8, (n + weight_k - 1) / weight_k);
  int64_t best = 1;
  double least = 1e30;
  for (int64_t s = 1; s <= most; ++s) {
    const int64_t waves = (tiles * s + multiprocessors - 1) / multiprocessors;
    const double time = static_cast<double>(waves) / static_cast<double>(s);
    if (time < 0.95 * least) best = s, least = time;
  }
  return best;
}

}  // namespace

void lora_down_forward(const Exec& exec, const LoraPart* parts, int count, ConstPtr x, int64_t x_row, Ptr scratch,
                       int64_t n, int64_t c, int64_t r, float scale) {
  if (!fits(parts, count, x, x_row, n, c, r)) {
    for (int i = 0; i < count; ++i) composed_forward(exec, parts[i], x, x_row, scratch, n, c, r, scale);
    return;
  }
  if (const int most = parts_together(exec, forward_bytes<max_lora_parts>()); count > most) {
    cuda::lora_down_forward(exec, parts, most, x, x_row, scratch, n, c, r, scale);
    return cuda::lora_down_forward(exec, parts + most, count - most, x, x_row, scratch, n, c, r, scale);
  }
  const Parts p = parts_of(exec, parts, count, c, r, space_for_rounded(exec, parts, count, c, r));
  const dim3 grid(blocks_for(n, forward_rows), rank_tiles(r));
  for_parts(count, parts[0].kept != nullptr, [&]<int of, bool masked>() {
    constexpr int bytes = forward_bytes<of>();
    allow_shared(forward_kernel<of, masked>, bytes);
    forward_kernel<of, masked><<<grid, threads, bytes, stream_of(exec)>>>(
        p, x.as<bf16>(), x_row, n, static_cast<int>(c), static_cast<int>(r), scale);
  });
  check_launch("lora_down_forward");
}

void lora_down_backward_weight(const Exec& exec, const LoraPart* parts, int count, ConstPtr x, int64_t x_row,
                               Ptr scratch, int64_t n, int64_t c, int64_t r) {
  if (!fits(parts, count, x, x_row, n, c, r)) {
    for (int i = 0; i < count; ++i) composed_backward_weight(exec, parts[i], x, x_row, scratch, n, c, r);
    return;
  }
  if (const int most = parts_together(exec, weight_bytes<max_lora_parts>()); count > most) {
    cuda::lora_down_backward_weight(exec, parts, most, x, x_row, scratch, n, c, r);
    return cuda::lora_down_backward_weight(exec, parts + most, count - most, x, x_row, scratch, n, c, r);
  }
  const Parts p = parts_of(exec, parts, count, c, r, nullptr);
  const int64_t tiles = blocks_for(c, weight_c) * int64_t{rank_tiles(r)};
  const int64_t splits = best_splits(tiles, n, exec.cuda->multiprocessors());
  const int64_t steps = (n + weight_k - 1) / weight_k;
  const int64_t tokens_each = (steps + splits - 1) / splits * weight_k;
  float* const partial = splits == 1 ? nullptr : exec.cuda->workspace<float>(splits * count * r * c);
  const dim3 grid(blocks_for(c, weight_c), static_cast<unsigned>(splits), rank_tiles(r));
  for_parts(count, parts[0].kept != nullptr, [&]<int of, bool masked>() {
    constexpr int bytes = weight_bytes<of>();
    allow_shared(weight_kernel<of, masked>, bytes);
    weight_kernel<of, masked><<<grid, threads, bytes, stream_of(exec)>>>(
        p, partial, x.as<bf16>(), x_row, n, static_cast<int>(c), static_cast<int>(r), tokens_each);
  });
  check_launch("lora_down_backward_weight");
  if (splits == 1) return;
  const dim3 sum_grid(blocks_for(r * c, int64_t{threads} * 4), static_cast<unsigned>(count));
  weight_sum_kernel<<<sum_grid, threads, 0, stream_of(exec)>>>(p, partial, static_cast<int>(splits), r * c);
  check_launch("lora_down_backward_weight");
}

void lora_down_backward_input(const Exec& exec, const LoraPart* parts, int count, Ptr dx, Ptr scratch, int64_t n,
                              int64_t c, int64_t r) {
  if (!fits(parts, count, dx, c, n, c, r)) {
    for (int i = 0; i < count; ++i) composed_backward_input(exec, parts[i], dx, scratch, n, c, r);
    return;
  }
  const Parts p = parts_of(exec, parts, count, c, r, space_for_rounded(exec, parts, count, c, r));
  const dim3 grid(blocks_for(c, input_c), blocks_for(n, input_rows));
  const int bytes = input_bytes(count * int64_t{rank_tiles(r)});
  const auto launch = [&](auto kernel) {
    allow_shared(kernel, bytes);
    kernel<<<grid, input_threads, bytes, stream_of(exec)>>>(p, count, dx.as<bf16>(), n, static_cast<int>(c),
                                                            static_cast<int>(r));
  };
  parts[0].kept != nullptr ? launch(input_kernel<true>) : launch(input_kernel<false>);
  check_launch("lora_down_backward_input");
}

}  // namespace caravan::cuda
