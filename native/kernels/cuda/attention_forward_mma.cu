// FlashAttention-2's forward pass (arXiv 2307.08691) with the tensor cores of sm_80 and later: a block of four warps
// holds a tile of queries and walks the tiles of keys they see, from the last to the first; softmax in fp32.
#include "kernels/cuda/attention_mma.cuh"

namespace caravan::cuda {

namespace {

constexpr int threads = 128;

/// Rows a warp holds in units of 16, and keys of a step. Wide heads leave registers for half.
template <int dim>
struct ForwardTile {
  static constexpr int mt = dim > 128 ? 1 : 2;
  static constexpr int queries = 4 * 16 * mt;
  static constexpr int keys = dim > 128 ? 32 : 64;
  static constexpr size_t shared_bytes = (queries + 2 * keys) * tile_stride<dim> * sizeof(bf16);
};

template <int dim>
__global__ void __launch_bounds__(threads, 2)
    forward_mma_kernel(bf16* out, float* lse, const bf16* q, const bf16* k, const bf16* v, const AttentionTile* tiles,
                       int slots, AttentionParams p) {
  using Tile = ForwardTile<dim>;
  constexpr int mt = Tile::mt, keys = Tile::keys;
  const WorkItem item = work_item(p, blockIdx.x, slots, p.heads, p.group);
  const AttentionTile tile = tiles[item.slot];
  if (tile.keys == 0) return;
  const int head = item.head, kv_head = head / p.group;
  extern __shared__ __align__(16) unsigned char shared[];
  bf16* const qs = reinterpret_cast<bf16*>(shared);
  bf16* const ks = qs + Tile::queries * tile_stride<dim>;
  bf16* const vs = ks + keys * tile_stride<dim>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_query = tile.index * Tile::queries, rows = min(Tile::queries, tile.queries() - first_query);
  const int first_position = tile.past + first_query;
  const int first_step = first_key(p, first_position) / keys, last_step = (first_position + rows - 1) / keys;
  const int row = warp * 16 * mt + lane / 4;  // of the tile; + 8 and + 16 m for the lane's other rows

  const auto copy_keys = [&](bf16* to, const bf16* from, int step) {
    copy_tile<keys, dim, threads>(to, from, static_cast<int64_t>(tile.first) + step * keys, tile.keys - step * keys,
                                  kv_head, p.kv_heads, p.head_dim);
    commit_copies();
  };
  copy_tile<Tile::queries, dim, threads>(qs, q, static_cast<int64_t>(tile.first) + first_query, rows, head, p.heads,
                                         p.head_dim);
  copy_keys(ks, k, last_step);

  float sums[mt][dim / 8][4] = {};
  float largest[mt][2], total[mt][2];
#pragma unroll
  for (int m = 0; m < mt; ++m) {
    largest[m][0] = largest[m][1] = -INFINITY;
    total[m][0] = total[m][1] = 0.0f;
  }
  for (int step = last_step; step >= first_step; --step) {
    wait_copies<0>();
    __syncthreads();  // the keys are here, and every warp is done with the values of the step before
    copy_keys(vs, v, step);
    float scores[mt][keys / 8][4];
    multiply_across<dim, mt, keys>(scores, qs, warp * 16 * mt, ks);
    const int key = step * keys;
    if (key + keys - 1 > first_position || (p.window > 0 && key <= first_position + rows - 1 - p.window)) {
#pragma unroll
      for (int m = 0; m < mt; ++m) {
#pragma unroll
        for (int j = 0; j < keys / 8; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int position = first_position + row + 16 * m + i / 2 * 8;
            if (!sees(p, position, key + 8 * j + lane % 4 * 2 + i % 2)) scores[m][j][i] = -INFINITY;
          }
        }
      }
    }
#pragma unroll
    for (int m = 0; m < mt; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float now = largest[m][half];
#pragma unroll
        for (int j = 0; j < keys / 8; ++j) {
          now = fmaxf(now, fmaxf(scores[m][j][2 * half], scores[m][j][2 * half + 1]));
        }
        now = row_max(now);
        const float base = now == -INFINITY ? 0.0f : now * p.scale_log2;  // nothing seen yet: zeros, not NaN
        const float shrink = exp2_fast(largest[m][half] * p.scale_log2 - base);
        largest[m][half] = now;
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < keys / 8; ++j) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            scores[m][j][i] = exp2_fast(fmaf(scores[m][j][i], p.scale_log2, -base));
            sum += scores[m][j][i];
          }
        }
        total[m][half] = total[m][half] * shrink + sum;
#pragma unroll
        for (int c = 0; c < dim / 8; ++c) {
          sums[m][c][2 * half] *= shrink;
          sums[m][c][2 * half + 1] *= shrink;
        }
      }
    }
    wait_copies<0>();
    __syncthreads();  // the values are here, and every warp is done with the keys
    if (step > first_step) copy_keys(ks, k, step - 1);
    multiply_along<dim, mt, keys>(sums, scores, vs);
  }
#pragma unroll
  for (int m = 0; m < mt; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = row_sum(total[m][half]);
      const int at = row + 16 * m + 8 * half;
      if (at >= rows) continue;
      const int64_t query = static_cast<int64_t>(tile.first) + first_query + at;
      const float inverse = 1.0f / sum;
#pragma unroll
      for (int c = 0; c < dim / 8; ++c) {
        const int channel = 8 * c + lane % 4 * 2;
        if (channel < p.head_dim) {
          store_pair(out + (query * p.heads + head) * p.head_dim + channel, sums[m][c][2 * half] * inverse,
                     sums[m][c][2 * half + 1] * inverse);
        }
      }
      if (lse != nullptr && lane % 4 == 0) lse[head * p.n + query] = largest[m][half] * p.scale + logf(sum);
    }
  }
}

}  // namespace

void attention_forward_mma(const Exec& exec, bf16* out, float* lse, const bf16* q, const bf16* k, const bf16* v,
                           const int32_t* cu_seqlens, int64_t sequences, int64_t n, int64_t past,
                           const AttentionShape& shape) {
  with_padded_dim(shape.head_dim, [&]<int dim>() {
    using Tile = ForwardTile<dim>;
    const int64_t slots = tile_slots(n, sequences, Tile::queries);
    AttentionTile* tiles = exec.cuda->workspace<AttentionTile>(slots);
    attention_tiles(exec, tiles, cu_seqlens, sequences, n, past, Tile::queries, TileOrder::last_first);
    const auto kernel = forward_mma_kernel<dim>;
    allow_shared_memory(kernel, Tile::shared_bytes, "attention_forward");
    kernel<<<static_cast<unsigned>(slots * shape.heads), threads, Tile::shared_bytes, stream_of(exec)>>>(
        out, lse, q, k, v, tiles, static_cast<int>(slots), attention_params(shape, n, past + n));
  });
  check_launch("attention_forward");
}

}  // namespace caravan::cuda
