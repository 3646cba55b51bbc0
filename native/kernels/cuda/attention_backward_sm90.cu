// The backward pass for Hopper, cut as attention_backward_mma.cu cuts it: one kernel for dk and dv by tiles of keys, one
// for dq by tiles of queries. In both one warp copies what is walked over, and two warpgroups own 64 rows each.
#include "kernels/cuda/attention_sm90.cuh"

namespace caravan::cuda {

namespace {

constexpr int own_rows = 128, step_rows = 64;
constexpr int threads = 3 * 128;

template <int dim>
struct __align__(1024) QueriesShared {
  static constexpr int stages = 4;
  bf16 k[stages][step_rows * dim];
  bf16 v[stages][step_rows * dim];
  uint64_t full[stages], empty[stages];
};

template <int dim>
struct __align__(1024) KeysShared {
  static constexpr int stages = 3;
  bf16 k[own_rows * dim];
  bf16 v[own_rows * dim];
  bf16 q[stages][step_rows * dim];
  bf16 dout[stages][step_rows * dim];
  float lse[stages][step_rows];  // times log2(e); infinite where there is no query, so that its probabilities are 0
  float delta[stages][step_rows];
  uint64_t full[stages], empty[stages], own_full;
};

struct BackwardArguments {
  bf16 *dq, *dk, *dv;
  const bf16 *dout, *q, *out;
  const float* lse;
  float* delta;  // (heads, n): sum over channels of dout * out; written with dq, read for dk and dv
  const AttentionTile* tiles;
  int slots;
  AttentionParams p;
};

#ifdef CARAVAN_SM90A

constexpr int consumer_warps = 8;

__device__ __forceinline__ void fence_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// A warpgroup's 64 rows as left operands in registers; rows from `rows` on are zeros.
template <int dim>
__device__ __forceinline__ void load_own(uint32_t (&a)[dim / 16][4], const bf16* from, int64_t first, int row, int rows,
                                         int head, int heads) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool real = row + 8 * half < rows;
    const bf16* const at = from + ((first + (real ? row + 8 * half : 0)) * heads + head) * dim + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < dim / 16; ++i) {
      a[i][half] = real ? *reinterpret_cast<const uint32_t*>(at + 16 * i) : 0;
      a[i][half + 2] = real ? *reinterpret_cast<const uint32_t*>(at + 16 * i + 8) : 0;
    }
  }
}

template <int dim>
__device__ __forceinline__ void sum_dq(QueriesShared<dim>& s, const BackwardArguments& a, const AttentionTile& tile,
                                       int head, int steps_begin, int steps_end) {
  const AttentionParams& p = a.p;
  const int group = threadIdx.x / 128 - 1, lane = threadIdx.x % 32;
  const int row = 64 * group + threadIdx.x / 32 % 4 * 16 + lane / 4;  // of the tile, + 8 for the lane's other row
  const int first_query = tile.index * own_rows, rows = min(own_rows, tile.keys - first_query);
  const int64_t first = static_cast<int64_t>(tile.first) + first_query;
  uint32_t q[dim / 16][4], dout[dim / 16][4], weights[step_rows / 16][4];
  load_own<dim>(q, a.q, first, row, rows, head, p.heads);
  load_own<dim>(dout, a.dout, first, row, rows, head, p.heads);
  float lse[2], delta[2] = {0.0f, 0.0f};
  {
    uint32_t out[dim / 16][4];
    load_own<dim>(out, a.out, first, row, rows, head, p.heads);
#pragma unroll
    for (int i = 0; i < dim / 16; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t x = dout[i][j], y = out[i][j];
        delta[j % 2] = fmaf(__uint_as_float(x << 16), __uint_as_float(y << 16), delta[j % 2]);
        delta[j % 2] = fmaf(__uint_as_float(x & 0xffff0000u), __uint_as_float(y & 0xffff0000u), delta[j % 2]);
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool real = row + 8 * half < rows;
    const int64_t at = head * p.n + first + row + 8 * half;
    lse[half] = real ? a.lse[at] * log2_e : INFINITY;
    delta[half] = row_sum(delta[half]);
    if (real && lane % 4 == 0) a.delta[at] = delta[half];
  }
  float scores[step_rows / 2], dscores[step_rows / 2], sums[dim / 2];
#pragma unroll
  for (int i = 0; i < dim / 2; ++i) sums[i] = 0.0f;
  // The first warpgroup's queries do not see the last keys of the tile.
  const int end = min(steps_end, (first_query + 64 * group + 63) / step_rows + 1);
  const auto to_dscores = [&](int step) {
    const int key = step * step_rows;
    const bool masked =
        key + step_rows - 1 > first_query + 64 * group || (p.window > 0 && key <= first_query + rows - 1 - p.window);
#pragma unroll
    for (int i = 0; i < step_rows / 2; ++i) {
      const int half = i / 2 % 2;
      const bool seen = !masked || sees(p, first_query + row + 8 * half, key + i / 4 * 8 + lane % 4 * 2 + i % 2);
      const float probability = seen ? exp2_fast(fmaf(scores[i], p.scale_log2, -lse[half])) : 0.0f;
      dscores[i] = probability * (dscores[i] - delta[half]);
    }
  };
  Ring<QueriesShared<dim>::stages> ring;
  hopper::barrier_wait(&s.full[0], 0);
  hold(scores);
  hold(dscores);
  hopper::wgmma_begin();
  start_across<dim, step_rows>(scores, q, s.k[0]);
  start_across<dim, step_rows>(dscores, dout, s.v[0]);
  hopper::wgmma_commit();
  hopper::wgmma_wait<0>();
  hold(scores);
  hold(dscores);
  to_dscores(steps_begin);
  round_weights(weights, dscores);
  int before = 0;  // stage of the step whose dscores wait in `weights`
  ring.advance();
  for (int step = steps_begin + 1; step < end; ++step) {
    hopper::barrier_wait(&s.full[ring.stage], ring.parity);
    hold(scores);
    hold(dscores);
    hold(sums);
    hopper::wgmma_begin();
    start_across<dim, step_rows>(scores, q, s.k[ring.stage]);
    start_across<dim, step_rows>(dscores, dout, s.v[ring.stage]);
    hopper::wgmma_commit();
    start_along<step_rows>(sums, weights, s.k[before]);
    hopper::wgmma_commit();
    hopper::wgmma_wait<1>();
    hold(scores);
    hold(dscores);
    to_dscores(step);
    hopper::wgmma_wait<0>();
    hold(sums);
    if (lane == 0) hopper::barrier_arrive(&s.empty[before]);
    round_weights(weights, dscores);
    before = ring.stage;
    ring.advance();
  }
  hold(sums);
  hopper::wgmma_begin();
  start_along<step_rows>(sums, weights, s.k[before]);
  hopper::wgmma_commit();
  hopper::wgmma_wait<0>();
  hold(sums);
  if (lane == 0) hopper::barrier_arrive(&s.empty[before]);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = row + 8 * half;
    store_row<dim>(a.dq + ((first + at) * p.heads + head) * dim, sums, half, p.scale, at < rows);
  }
}

template <int dim>
__device__ __forceinline__ void sum_dk_dv(KeysShared<dim>& s, const BackwardArguments& a, const AttentionTile& tile,
                                          int kv_head, int query_begin, int query_end) {
  const AttentionParams& p = a.p;
  const int group = threadIdx.x / 128 - 1, lane = threadIdx.x % 32;
  const int row = 64 * group + threadIdx.x / 32 % 4 * 16 + lane / 4;
  const int first_key = tile.index * own_rows, rows = min(own_rows, tile.keys - first_key);
  float scores[step_rows / 2], dscores[step_rows / 2], dk_sums[dim / 2], dv_sums[dim / 2];
  uint32_t weights[step_rows / 16][4], dweights[step_rows / 16][4];
#pragma unroll
  for (int i = 0; i < dim / 2; ++i) dk_sums[i] = dv_sums[i] = 0.0f;
  const bf16 *const k = s.k + 64 * group * 64, *const v = s.v + 64 * group * 64;
  hopper::barrier_wait(&s.own_full, 0);
  Ring<KeysShared<dim>::stages> ring;
  for (int head = 0; head < p.group; ++head) {
    int query = query_begin;
    if (group == 1) {  // the first queries do not see the second warpgroup's keys
      hopper::barrier_wait(&s.full[ring.stage], ring.parity);
      if (lane == 0) hopper::barrier_arrive(&s.empty[ring.stage]);
      query += step_rows;
      ring.advance();
    }
    for (; query < query_end; query += step_rows, ring.advance()) {
      hopper::barrier_wait(&s.full[ring.stage], ring.parity);
      hold(scores);
      hold(dscores);
      hopper::wgmma_begin();
      start_across<dim, own_rows, step_rows>(scores, k, s.q[ring.stage]);
      hopper::wgmma_commit();
      start_across<dim, own_rows, step_rows>(dscores, v, s.dout[ring.stage]);
      hopper::wgmma_commit();
      hopper::wgmma_wait<1>();
      hold(scores);
      const bool masked = query < first_key + 64 * group + 63 ||
                          (p.window > 0 && first_key + 64 * group <= query + step_rows - 1 - p.window);
#pragma unroll
      for (int j = 0; j < step_rows / 8; ++j) {
        const int column = 8 * j + lane % 4 * 2;
        const float2 lse = *reinterpret_cast<const float2*>(&s.lse[ring.stage][column]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const bool seen = !masked || sees(p, query + column + i % 2, first_key + row + i / 2 * 8);
          const float exponent = fmaf(scores[4 * j + i], p.scale_log2, -(i % 2 == 0 ? lse.x : lse.y));
          scores[4 * j + i] = seen ? exp2_fast(exponent) : 0.0f;
        }
      }
      round_weights(weights, scores);
      hold(dv_sums);
      hopper::wgmma_begin();
      start_along<step_rows>(dv_sums, weights, s.dout[ring.stage]);
      hopper::wgmma_commit();
      hopper::wgmma_wait<1>();
      hold(dscores);
#pragma unroll
      for (int j = 0; j < step_rows / 8; ++j) {
        const float2 delta = *reinterpret_cast<const float2*>(&s.delta[ring.stage][8 * j + lane % 4 * 2]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          dscores[4 * j + i] = scores[4 * j + i] * (dscores[4 * j + i] - (i % 2 == 0 ? delta.x : delta.y));
        }
      }
      round_weights(dweights, dscores);
      hold(dk_sums);
      hopper::wgmma_begin();
      start_along<step_rows>(dk_sums, dweights, s.q[ring.stage]);
      hopper::wgmma_commit();
      hopper::wgmma_wait<0>();
      hold(dk_sums);
      hold(dv_sums);
      if (lane == 0) hopper::barrier_arrive(&s.empty[ring.stage]);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = row + 8 * half;
    const int64_t to = ((static_cast<int64_t>(tile.first) + first_key + at) * p.kv_heads + kv_head) * dim;
    store_row<dim>(a.dk + to, dk_sums, half, p.scale, at < rows);
    store_row<dim>(a.dv + to, dv_sums, half, 1.0f, at < rows);
  }
}

#endif  // CARAVAN_SM90A

template <int dim>
__global__ void __launch_bounds__(threads, 1)
    backward_queries_sm90_kernel(const __grid_constant__ CUtensorMap k, const __grid_constant__ CUtensorMap v,
                                 const __grid_constant__ BackwardArguments a) {
#ifdef CARAVAN_SM90A
  using Shared = QueriesShared<dim>;
  const WorkItem item = work_item(a.p, blockIdx.x, a.slots, a.p.heads, a.p.group);
  const AttentionTile tile = a.tiles[item.slot];
  if (tile.keys == 0) return;
  extern __shared__ __align__(1024) unsigned char shared[];
  Shared& s = *reinterpret_cast<Shared*>(shared);
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shared::stages; ++i) {
      hopper::barrier_init(&s.full[i], 1);
      hopper::barrier_init(&s.empty[i], consumer_warps);
    }
    fence_barriers();
  }
  __syncthreads();
  const int first_query = tile.index * own_rows, rows = min(own_rows, tile.keys - first_query);
  const int begin = first_key(a.p, first_query) / step_rows, end = (first_query + rows - 1) / step_rows + 1;
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x == 0) {
      Ring<Shared::stages> ring;
      for (int step = begin; step < end; ++step, ring.advance()) {
        hopper::barrier_wait(&s.empty[ring.stage], ring.parity ^ 1);
        hopper::barrier_expect(&s.full[ring.stage], 2 * step_rows * dim * 2);
        const int row = tile.first + step * step_rows;
        copy_box_rows<dim, step_rows>(s.k[ring.stage], &k, &s.full[ring.stage], item.head / a.p.group, row);
        copy_box_rows<dim, step_rows>(s.v[ring.stage], &v, &s.full[ring.stage], item.head / a.p.group, row);
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    sum_dq<dim>(s, a, tile, item.head, begin, end);
  }
#endif
}

template <int dim>
__global__ void __launch_bounds__(threads, 1)
    backward_keys_sm90_kernel(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap dout,
                              const __grid_constant__ CUtensorMap k, const __grid_constant__ CUtensorMap v,
                              const __grid_constant__ BackwardArguments a) {
#ifdef CARAVAN_SM90A
  using Shared = KeysShared<dim>;
  const AttentionParams& p = a.p;
  const WorkItem item = work_item(p, blockIdx.x, a.slots, p.kv_heads, 1);
  const AttentionTile tile = a.tiles[item.slot];
  if (tile.keys == 0) return;
  extern __shared__ __align__(1024) unsigned char shared[];
  Shared& s = *reinterpret_cast<Shared*>(shared);
  if (threadIdx.x == 0) {
    hopper::barrier_init(&s.own_full, 1);
    for (int i = 0; i < Shared::stages; ++i) {
      hopper::barrier_init(&s.full[i], 1 + 32);  // the copying thread, and the warp that brings lse and delta
      hopper::barrier_init(&s.empty[i], consumer_warps);
    }
    fence_barriers();
  }
  __syncthreads();
  const int first_key = tile.index * own_rows, rows = min(own_rows, tile.keys - first_key);
  const int end = query_end(p, first_key + rows - 1, tile.keys);
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x == 0) {
      hopper::barrier_expect(&s.own_full, 2 * own_rows * dim * 2);
      copy_box_rows<dim, own_rows>(s.k, &k, &s.own_full, item.head, tile.first + first_key);
      copy_box_rows<dim, own_rows>(s.v, &v, &s.own_full, item.head, tile.first + first_key);
      Ring<Shared::stages> ring;
      for (int head = item.head * p.group; head < (item.head + 1) * p.group; ++head) {
        for (int query = first_key; query < end; query += step_rows, ring.advance()) {
          uint64_t* const full = &s.full[ring.stage];
          hopper::barrier_wait(&s.empty[ring.stage], ring.parity ^ 1);
          hopper::barrier_expect(full, 2 * step_rows * dim * 2);
          copy_box_rows<dim, step_rows>(s.q[ring.stage], &q, full, head, tile.first + query);
          copy_box_rows<dim, step_rows>(s.dout[ring.stage], &dout, full, head, tile.first + query);
        }
      }
    } else if (threadIdx.x >= 32 && threadIdx.x < 64) {
      Ring<Shared::stages> ring;
      for (int head = item.head * p.group; head < (item.head + 1) * p.group; ++head) {
        for (int query = first_key; query < end; query += step_rows, ring.advance()) {
          hopper::barrier_wait(&s.empty[ring.stage], ring.parity ^ 1);
          for (int i = threadIdx.x - 32; i < step_rows; i += 32) {
            const int64_t at = head * p.n + tile.first + query + i;
            const bool real = query + i < tile.keys;
            s.lse[ring.stage][i] = real ? a.lse[at] * log2_e : INFINITY;
            s.delta[ring.stage][i] = real ? a.delta[at] : 0.0f;
          }
          hopper::barrier_arrive(&s.full[ring.stage]);
        }
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    sum_dk_dv<dim>(s, a, tile, item.head, first_key, end);
  }
#endif
}

}  // namespace

void attention_backward_sm90(const Exec& exec, bf16* dq, bf16* dk, bf16* dv, const bf16* dout, const bf16* q,
                             const bf16* k, const bf16* v, const bf16* out, const float* lse, const int32_t* cu_seqlens,
                             int64_t sequences, int64_t n, const AttentionShape& shape) {
  const int64_t slots = tile_slots(n, sequences, own_rows), dim = shape.head_dim;
  AttentionTile* const query_tiles = static_cast<AttentionTile*>(
      exec.cuda->workspace(2 * slots * sizeof(AttentionTile) + shape.heads * n * sizeof(float)));
  AttentionTile* const key_tiles = query_tiles + slots;
  float* const delta = reinterpret_cast<float*>(key_tiles + slots);
  attention_tiles(exec, query_tiles, cu_seqlens, sequences, n, 0, own_rows, TileOrder::last_first);
  attention_tiles(exec, key_tiles, cu_seqlens, sequences, n, 0, own_rows, TileOrder::first_first);
  BackwardArguments arguments = {
      dq, dk, dv, dout, q, out, lse, delta, query_tiles, static_cast<int>(slots), attention_params(shape, n, n)};
  const CUtensorMap k_steps = attention_map(k, n, shape.kv_heads, dim, step_rows);
  const CUtensorMap v_steps = attention_map(v, n, shape.kv_heads, dim, step_rows);
  const CUtensorMap k_own = attention_map(k, n, shape.kv_heads, dim, own_rows);
  const CUtensorMap v_own = attention_map(v, n, shape.kv_heads, dim, own_rows);
  const CUtensorMap q_steps = attention_map(q, n, shape.heads, dim, step_rows);
  const CUtensorMap dout_steps = attention_map(dout, n, shape.heads, dim, step_rows);
  const auto launch = [&]<int padded>() {
    const auto queries_kernel = backward_queries_sm90_kernel<padded>;
    allow_shared_memory(queries_kernel, sizeof(QueriesShared<padded>), "attention_backward");
    queries_kernel<<<static_cast<unsigned>(slots * shape.heads), threads, sizeof(QueriesShared<padded>),
                     stream_of(exec)>>>(k_steps, v_steps, arguments);
    const auto keys_kernel = backward_keys_sm90_kernel<padded>;
    allow_shared_memory(keys_kernel, sizeof(KeysShared<padded>), "attention_backward");
    arguments.tiles = key_tiles;
    keys_kernel<<<static_cast<unsigned>(slots * shape.kv_heads), threads, sizeof(KeysShared<padded>),
                  stream_of(exec)>>>(q_steps, dout_steps, k_own, v_own, arguments);
  };
  if (dim == 64) {
    launch.operator()<64>();
  } else {
    launch.operator()<128>();
  }
  check_launch("attention_backward");
}

}  // namespace caravan::cuda
