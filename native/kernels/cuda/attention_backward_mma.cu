// FlashAttention-2's backward pass with the tensor cores of sm_80 and later, in two kernels, so that every gradient is
// summed in registers in one order: dk and dv by tiles of keys over the queries (and the heads of a group), dq by tiles
// of queries over the keys. Both form the scores again:
//   P = exp(scale Q K^T - lse)   dP = dO V^T   dS = scale P (dP - delta)   dV = P^T dO   dK = dS^T Q   dQ = dS K
#include "kernels/cuda/attention_mma.cuh"

namespace caravan::cuda {

namespace {

constexpr int threads = 128;
constexpr int own_rows = 64;  // of the tile whose gradient a block sums: 16 a warp

/// Rows of the other side that a block takes at a time.
template <int dim>
constexpr int step_rows = dim > 128 ? 16 : 64;  // 99 KiB of shared memory are all that some devices have

template <int dim>
constexpr size_t backward_shared_bytes =
    2 * (own_rows + step_rows<dim>)*tile_stride<dim> * sizeof(bf16) + 2 * step_rows<dim> * sizeof(float);

template <int dim>
__device__ __forceinline__ void store_rows(bf16* to, const float (&sums)[1][dim / 8][4], int64_t first, int rows,
                                           int head, int heads, int d, float scale) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp * 16 + lane / 4 + 8 * half;
    if (row >= rows) continue;
#pragma unroll
    for (int c = 0; c < dim / 8; ++c) {
      const int channel = 8 * c + lane % 4 * 2;
      if (channel < d) {
        store_pair(to + ((first + row) * heads + head) * d + channel, scale * sums[0][c][2 * half],
                   scale * sums[0][c][2 * half + 1]);
      }
    }
  }
}

template <int dim>
__global__ void __launch_bounds__(threads, 2)
    backward_queries_mma_kernel(bf16* dq, const bf16* dout, const bf16* q, const bf16* k, const bf16* v,
                                const float* lse, const float* delta, const AttentionTile* tiles, int slots,
                                AttentionParams p) {
  constexpr int keys = step_rows<dim>;
  const WorkItem item = work_item(p, blockIdx.x, slots, p.heads, p.group);
  const AttentionTile tile = tiles[item.slot];
  if (tile.keys == 0) return;
  const int head = item.head, kv_head = head / p.group, d = p.head_dim;
  extern __shared__ __align__(16) unsigned char shared[];
  bf16* const qs = reinterpret_cast<bf16*>(shared);
  bf16* const douts = qs + own_rows * tile_stride<dim>;
  bf16* const ks = douts + own_rows * tile_stride<dim>;
  bf16* const vs = ks + keys * tile_stride<dim>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_query = tile.index * own_rows, rows = min(own_rows, tile.keys - first_query);
  const int64_t first = static_cast<int64_t>(tile.first) + first_query;
  copy_tile<own_rows, dim, threads>(qs, q, first, rows, head, p.heads, d);
  copy_tile<own_rows, dim, threads>(douts, dout, first, rows, head, p.heads, d);
  float row_lse[2], row_delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp * 16 + lane / 4 + 8 * half;
    row_lse[half] = row < rows ? lse[head * p.n + first + row] * log2_e : INFINITY;  // no row: probabilities of 0
    row_delta[half] = row < rows ? delta[head * p.n + first + row] : 0.0f;
  }
  float sums[1][dim / 8][4] = {};
  for (int key = first_key(p, first_query) / keys * keys; key < first_query + rows; key += keys) {
    const int valid = min(keys, tile.keys - key);
    __syncthreads();
    copy_tile<keys, dim, threads>(ks, k, static_cast<int64_t>(tile.first) + key, valid, kv_head, p.kv_heads, d);
    copy_tile<keys, dim, threads>(vs, v, static_cast<int64_t>(tile.first) + key, valid, kv_head, p.kv_heads, d);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    float scores[1][keys / 8][4], dscores[1][keys / 8][4];
    multiply_across<dim, 1, keys>(scores, qs, warp * 16, ks);
    multiply_across<dim, 1, keys>(dscores, douts, warp * 16, vs);
    const bool masked = key + keys - 1 > first_query || (p.window > 0 && key <= first_query + rows - 1 - p.window);
#pragma unroll
    for (int j = 0; j < keys / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int position = first_query + warp * 16 + lane / 4 + i / 2 * 8;
        const bool seen = !masked || sees(p, position, key + 8 * j + lane % 4 * 2 + i % 2);
        const float probability = seen ? exp2_fast(fmaf(scores[0][j][i], p.scale_log2, -row_lse[i / 2])) : 0.0f;
        dscores[0][j][i] = probability * (dscores[0][j][i] - row_delta[i / 2]);
      }
    }
    multiply_along<dim, 1, keys>(sums, dscores, ks);
  }
  store_rows<dim>(dq, sums, first, rows, head, p.heads, d, p.scale);
}

/// Wide heads leave no registers for both sums: then dk and dv take a kernel each.
template <int dim, bool with_dk, bool with_dv>
__global__ void __launch_bounds__(threads, 2)
    backward_keys_mma_kernel(bf16* dk, bf16* dv, const bf16* dout, const bf16* q, const bf16* k, const bf16* v,
                             const float* lse, const float* delta, const AttentionTile* tiles, int slots,
                             AttentionParams p) {
  constexpr int queries = step_rows<dim>;
  const WorkItem item = work_item(p, blockIdx.x, slots, p.kv_heads, 1);
  const AttentionTile tile = tiles[item.slot];
  if (tile.keys == 0) return;
  const int kv_head = item.head, d = p.head_dim;
  extern __shared__ __align__(16) unsigned char shared[];
  bf16* const ks = reinterpret_cast<bf16*>(shared);
  bf16* const vs = ks + own_rows * tile_stride<dim>;
  bf16* const qs = vs + own_rows * tile_stride<dim>;
  bf16* const douts = qs + queries * tile_stride<dim>;
  float* const lses = reinterpret_cast<float*>(douts + queries * tile_stride<dim>);
  float* const deltas = lses + queries;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_key = tile.index * own_rows, rows = min(own_rows, tile.keys - first_key);
  const int64_t first = static_cast<int64_t>(tile.first) + first_key;
  copy_tile<own_rows, dim, threads>(ks, k, first, rows, kv_head, p.kv_heads, d);
  if (with_dk) copy_tile<own_rows, dim, threads>(vs, v, first, rows, kv_head, p.kv_heads, d);
  float dk_sums[1][with_dk ? dim / 8 : 1][4] = {}, dv_sums[1][with_dv ? dim / 8 : 1][4] = {};
  const int last = query_end(p, first_key + rows - 1, tile.keys);
  for (int head = kv_head * p.group; head < (kv_head + 1) * p.group; ++head) {
    for (int query = first_key / queries * queries; query < last; query += queries) {
      const int valid = min(queries, tile.keys - query);
      const int64_t at = static_cast<int64_t>(tile.first) + query;
      __syncthreads();
      copy_tile<queries, dim, threads>(qs, q, at, valid, head, p.heads, d);
      copy_tile<queries, dim, threads>(douts, dout, at, valid, head, p.heads, d);
      commit_copies();
      if (threadIdx.x < queries) {
        const bool real = threadIdx.x < valid;
        lses[threadIdx.x] = real ? lse[head * p.n + at + threadIdx.x] * log2_e : INFINITY;
        deltas[threadIdx.x] = real ? delta[head * p.n + at + threadIdx.x] : 0.0f;
      }
      wait_copies<0>();
      __syncthreads();
      float scores[1][queries / 8][4];  // (keys, queries)
      multiply_across<dim, 1, queries>(scores, ks, warp * 16, qs);
      const bool masked =
          query < first_key + own_rows - 1 || (p.window > 0 && first_key <= query + queries - 1 - p.window);
#pragma unroll
      for (int j = 0; j < queries / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = 8 * j + lane % 4 * 2 + i % 2;
          const bool seen = !masked || sees(p, query + column, first_key + warp * 16 + lane / 4 + i / 2 * 8);
          scores[0][j][i] = seen ? exp2_fast(fmaf(scores[0][j][i], p.scale_log2, -lses[column])) : 0.0f;
        }
      }
      if constexpr (with_dv) multiply_along<dim, 1, queries>(dv_sums, scores, douts);
      if constexpr (with_dk) {
        float dscores[1][queries / 8][4];
        multiply_across<dim, 1, queries>(dscores, vs, warp * 16, douts);
#pragma unroll
        for (int j = 0; j < queries / 8; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            scores[0][j][i] *= dscores[0][j][i] - deltas[8 * j + lane % 4 * 2 + i % 2];
          }
        }
        multiply_along<dim, 1, queries>(dk_sums, scores, qs);
      }
    }
  }
  if constexpr (with_dk) store_rows<dim>(dk, dk_sums, first, rows, kv_head, p.kv_heads, d, p.scale);
  if constexpr (with_dv) store_rows<dim>(dv, dv_sums, first, rows, kv_head, p.kv_heads, d, 1.0f);
}

}  // namespace

void attention_backward_mma(const Exec& exec, bf16* dq, bf16* dk, bf16* dv, const bf16* dout, const bf16* q,
                            const bf16* k, const bf16* v, const bf16* out, const float* lse, const int32_t* cu_seqlens,
                            int64_t sequences, int64_t n, const AttentionShape& shape) {
  const int64_t slots = tile_slots(n, sequences, own_rows);
  AttentionTile* const query_tiles = static_cast<AttentionTile*>(
      exec.cuda->workspace(2 * slots * sizeof(AttentionTile) + shape.heads * n * sizeof(float)));
  AttentionTile* const key_tiles = query_tiles + slots;
  float* const delta = reinterpret_cast<float*>(key_tiles + slots);
  attention_delta(exec, delta, dout, out, n, shape);
  attention_tiles(exec, query_tiles, cu_seqlens, sequences, n, 0, own_rows, TileOrder::last_first);
  attention_tiles(exec, key_tiles, cu_seqlens, sequences, n, 0, own_rows, TileOrder::first_first);
  const AttentionParams p = attention_params(shape, n, n);
  const unsigned query_blocks = static_cast<unsigned>(slots * shape.heads);
  const unsigned key_blocks = static_cast<unsigned>(slots * shape.kv_heads);
  with_padded_dim(shape.head_dim, [&]<int dim>() {
    constexpr size_t bytes = backward_shared_bytes<dim>;
    const auto launch = [&](auto kernel, unsigned blocks, auto... arguments) {
      allow_shared_memory(kernel, bytes, "attention_backward");
      kernel<<<blocks, threads, bytes, stream_of(exec)>>>(arguments...);
    };
    launch(backward_queries_mma_kernel<dim>, query_blocks, dq, dout, q, k, v, lse, delta, query_tiles,
           static_cast<int>(slots), p);
    if constexpr (dim > 128) {
      launch(backward_keys_mma_kernel<dim, true, false>, key_blocks, dk, dv, dout, q, k, v, lse, delta, key_tiles,
             static_cast<int>(slots), p);
      launch(backward_keys_mma_kernel<dim, false, true>, key_blocks, dk, dv, dout, q, k, v, lse, delta, key_tiles,
             static_cast<int>(slots), p);
    } else {
      launch(backward_keys_mma_kernel<dim, true, true>, key_blocks, dk, dv, dout, q, k, v, lse, delta, key_tiles,
             static_cast<int>(slots), p);
    }
  });
  check_launch("attention_backward");
}

}  // namespace caravan::cuda
