// FlashAttention-3's forward pass (arXiv 2407.08608) for Hopper. A block stays on its multiprocessor and takes one tile
// of 128 queries after another. One warp copies; two warpgroups hold 64 queries each and take turns, so that the one's
// softmax runs while the other's products do. Within a warpgroup the scores of the next keys are formed while the values
// of the last are summed.
#include "kernels/cuda/attention_sm90.cuh"

namespace caravan::cuda {

namespace {

constexpr int tile_queries = 128, tile_keys = 128, stages = 2;
constexpr int tiles_ahead = 2;  // the next tile's queries come while the last is finished
constexpr int threads = 3 * 128;

template <int dim>
struct __align__(1024) ForwardShared {
  bf16 q[tiles_ahead][tile_queries * dim];
  bf16 k[stages][tile_keys * dim];
  bf16 v[stages][tile_keys * dim];
  uint64_t q_full[tiles_ahead], q_empty[tiles_ahead], k_full[stages], k_empty[stages], v_full[stages], v_empty[stages];
  int item[tiles_ahead];  // that q belongs to; -1: no more
};

struct ForwardArguments {
  bf16* out;
  float* lse;
  const AttentionTile* tiles;
  int* next_item;  // beyond those the blocks begin with
  int slots, items;
  AttentionParams p;
};

#ifdef CARAVAN_SM90A

constexpr int consumer_warps = 8;

/// First and last step of keys that a tile's queries see.
struct Steps {
  int first, last;
};

__device__ __forceinline__ Steps steps_of(const AttentionParams& p, const AttentionTile& tile) {
  const int first_query = tile.index * tile_queries, rows = min(tile_queries, tile.queries() - first_query);
  return {first_key(p, tile.past + first_query) / tile_keys, (tile.past + first_query + rows - 1) / tile_keys};
}

template <int dim>
__device__ __forceinline__ void produce(ForwardShared<dim>& s, const CUtensorMap* q, const CUtensorMap* k,
                                        const CUtensorMap* v, const ForwardArguments& a) {
  constexpr int tile_bytes = tile_keys * dim * 2;
  Ring<stages> ring;
  Ring<tiles_ahead> next;
  for (int at = blockIdx.x; at < a.items; at = gridDim.x + atomicAdd(a.next_item, 1)) {
    const WorkItem work = work_item(a.p, at, a.slots, a.p.heads, a.p.group);
    const AttentionTile tile = a.tiles[work.slot];
    if (tile.keys == 0) continue;
    hopper::barrier_wait(&s.q_empty[next.stage], next.parity ^ 1);
    s.item[next.stage] = at;
    hopper::barrier_expect(&s.q_full[next.stage], tile_queries * dim * 2);
    copy_box_rows<dim, tile_queries>(s.q[next.stage], q, &s.q_full[next.stage], work.head,
                                     tile.first + tile.index * tile_queries);
    next.advance();
    const Steps steps = steps_of(a.p, tile);
    for (int step = steps.last; step >= steps.first; --step, ring.advance()) {
      const int row = tile.first + step * tile_keys;
      hopper::barrier_wait(&s.k_empty[ring.stage], ring.parity ^ 1);
      hopper::barrier_expect(&s.k_full[ring.stage], tile_bytes);
      copy_box_rows<dim, tile_keys>(s.k[ring.stage], k, &s.k_full[ring.stage], work.head / a.p.group, row);
      hopper::barrier_wait(&s.v_empty[ring.stage], ring.parity ^ 1);
      hopper::barrier_expect(&s.v_full[ring.stage], tile_bytes);
      copy_box_rows<dim, tile_keys>(s.v[ring.stage], v, &s.v_full[ring.stage], work.head / a.p.group, row);
    }
  }
  hopper::barrier_wait(&s.q_empty[next.stage], next.parity ^ 1);
  s.item[next.stage] = -1;
  hopper::barrier_arrive(&s.q_full[next.stage]);
}

/// Running maximum (of scores, unscaled) and sum of a lane's two rows.
struct Softmax {
  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {0.0f, 0.0f};

  /// Scores to exponentials; `shrink` is what earlier sums are to be multiplied by.
  __device__ __forceinline__ void update(float (&scores)[tile_keys / 2], float (&shrink)[2], float scale_log2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float now = largest[half];
#pragma unroll
      for (int j = 0; j < tile_keys / 8; ++j) {
        now = fmaxf(now, fmaxf(scores[4 * j + 2 * half], scores[4 * j + 2 * half + 1]));
      }
      now = row_max(now);
      const float base = now == -INFINITY ? 0.0f : now * scale_log2;  // nothing seen yet: zeros, not NaN
      shrink[half] = exp2_fast(largest[half] * scale_log2 - base);
      largest[half] = now;
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < tile_keys / 8; ++j) {
#pragma unroll
        for (int i = 4 * j + 2 * half; i < 4 * j + 2 * half + 2; ++i) {
          scores[i] = exp2_fast(fmaf(scores[i], scale_log2, -base));
          sum += scores[i];
        }
      }
      total[half] = fmaf(total[half], shrink[half], sum);
    }
  }
};

template <int dim>
__device__ __forceinline__ void consume(ForwardShared<dim>& s, const ForwardArguments& a) {
  const AttentionParams& p = a.p;
  const int group = threadIdx.x / 128 - 1;  // of the two warpgroups
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const int row = 64 * group + 16 * warp + lane / 4;  // of the tile, + 8 for the lane's other row
  const bool elected = lane == 0;
  Ring<stages> keys, values;
  Ring<tiles_ahead> queries;
  if (group == 1) named_arrive(1, 256);  // the first warpgroup begins
  for (;; queries.advance()) {
    hopper::barrier_wait(&s.q_full[queries.stage], queries.parity);
    const int item = s.item[queries.stage];
    if (item < 0) break;
    const bf16* const q = s.q[queries.stage] + 64 * group * 64;
    const WorkItem work = work_item(p, item, a.slots, p.heads, p.group);
    const AttentionTile tile = a.tiles[work.slot];
    const Steps steps = steps_of(p, tile);
    const int first_query = tile.index * tile_queries, rows = min(tile_queries, tile.queries() - first_query);
    const int position = tile.past + first_query + row;
    float scores[tile_keys / 2], sums[dim / 2], shrink[2];
    uint32_t weights[tile_keys / 16][4];
    Softmax softmax;
#pragma unroll
    for (int i = 0; i < dim / 2; ++i) sums[i] = 0.0f;

    const auto mask = [&](int step) {
      const int key = step * tile_keys, first_position = tile.past + first_query;
      if (key + tile_keys - 1 <= first_position && (p.window == 0 || key > first_position + rows - 1 - p.window))
        return;
#pragma unroll
      for (int i = 0; i < tile_keys / 2; ++i) {
        if (!sees(p, position + i / 2 % 2 * 8, key + i / 4 * 8 + lane % 4 * 2 + i % 2)) scores[i] = -INFINITY;
      }
    };

    hopper::barrier_wait(&s.k_full[keys.stage], keys.parity);
    hold(scores);
    hopper::wgmma_begin();
    start_across<dim, tile_queries, tile_keys>(scores, q, s.k[keys.stage]);
    hopper::wgmma_commit();
    hopper::wgmma_wait<0>();
    hold(scores);
    if (elected) {
      hopper::barrier_arrive(&s.k_empty[keys.stage]);
      if (steps.first == steps.last) hopper::barrier_arrive(&s.q_empty[queries.stage]);
    }
    keys.advance();
    mask(steps.last);
    softmax.update(scores, shrink, p.scale_log2);
    round_weights(weights, scores);

    for (int step = steps.last - 1; step >= steps.first; --step) {
      hopper::barrier_wait(&s.k_full[keys.stage], keys.parity);
      named_sync(1 + group, 256);
      hold(scores);
      hold(sums);
      hopper::wgmma_begin();
      start_across<dim, tile_queries, tile_keys>(scores, q, s.k[keys.stage]);
      hopper::wgmma_commit();
      hopper::barrier_wait(&s.v_full[values.stage], values.parity);
      start_along<tile_keys>(sums, weights, s.v[values.stage]);
      hopper::wgmma_commit();
      named_arrive(2 - group, 256);
      hopper::wgmma_wait<1>();
      hold(scores);
      if (elected) {
        hopper::barrier_arrive(&s.k_empty[keys.stage]);
        if (step == steps.first) hopper::barrier_arrive(&s.q_empty[queries.stage]);
      }
      keys.advance();
      mask(step);
      softmax.update(scores, shrink, p.scale_log2);
      hopper::wgmma_wait<0>();
      hold(sums);
      if (elected) hopper::barrier_arrive(&s.v_empty[values.stage]);
      values.advance();
#pragma unroll
      for (int i = 0; i < dim / 2; ++i) sums[i] *= shrink[i / 2 % 2];
      round_weights(weights, scores);
    }
    hopper::barrier_wait(&s.v_full[values.stage], values.parity);
    hold(sums);
    hopper::wgmma_begin();
    start_along<tile_keys>(sums, weights, s.v[values.stage]);
    hopper::wgmma_commit();
    hopper::wgmma_wait<0>();
    hold(sums);
    if (elected) hopper::barrier_arrive(&s.v_empty[values.stage]);
    values.advance();

#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = row_sum(softmax.total[half]);
      const int at = row + 8 * half;
      const int64_t query = static_cast<int64_t>(tile.first) + first_query + at;
      store_row<dim>(a.out + (query * p.heads + work.head) * dim, sums, half, 1.0f / sum, at < rows);
      if (a.lse != nullptr && lane % 4 == 0 && at < rows) {
        a.lse[work.head * p.n + query] = softmax.largest[half] * p.scale + logf(sum);
      }
    }
  }
}

#endif  // CARAVAN_SM90A

template <int dim>
__global__ void __launch_bounds__(threads, 1)
    forward_sm90_kernel(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
                        const __grid_constant__ CUtensorMap v, const __grid_constant__ ForwardArguments arguments) {
#ifdef CARAVAN_SM90A
  extern __shared__ __align__(1024) unsigned char shared[];
  ForwardShared<dim>& s = *reinterpret_cast<ForwardShared<dim>*>(shared);
  if (threadIdx.x == 0) {
    for (int i = 0; i < tiles_ahead; ++i) {
      hopper::barrier_init(&s.q_full[i], 1);
      hopper::barrier_init(&s.q_empty[i], consumer_warps);
    }
    for (int i = 0; i < stages; ++i) {
      hopper::barrier_init(&s.k_full[i], 1);
      hopper::barrier_init(&s.v_full[i], 1);
      hopper::barrier_init(&s.k_empty[i], consumer_warps);
      hopper::barrier_init(&s.v_empty[i], consumer_warps);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x == 0) produce<dim>(s, &q, &k, &v, arguments);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    consume<dim>(s, arguments);
  }
#endif
}

}  // namespace

void attention_forward_sm90(const Exec& exec, bf16* out, float* lse, const bf16* q, const bf16* k, const bf16* v,
                            const int32_t* cu_seqlens, int64_t sequences, int64_t n, int64_t past,
                            const AttentionShape& shape) {
  const int64_t slots = tile_slots(n, sequences, tile_queries), items = slots * shape.heads;
  AttentionTile* const tiles =
      static_cast<AttentionTile*>(exec.cuda->workspace(slots * sizeof(AttentionTile) + sizeof(int)));
  int* const next_item = reinterpret_cast<int*>(tiles + slots);
  attention_tiles(exec, tiles, cu_seqlens, sequences, n, past, tile_queries, TileOrder::last_first, next_item);
  const ForwardArguments arguments = {out,
                                      lse,
                                      tiles,
                                      next_item,
                                      static_cast<int>(slots),
                                      static_cast<int>(items),
                                      attention_params(shape, n, past + n)};
  const CUtensorMap q_map = attention_map(q, n, shape.heads, shape.head_dim, tile_queries);
  const CUtensorMap k_map = attention_map(k, past + n, shape.kv_heads, shape.head_dim, tile_keys);
  const CUtensorMap v_map = attention_map(v, past + n, shape.kv_heads, shape.head_dim, tile_keys);
  const unsigned blocks = static_cast<unsigned>(std::min<int64_t>(items, exec.cuda->multiprocessors()));
  const auto launch = [&]<int dim>() {
    const auto kernel = forward_sm90_kernel<dim>;
    allow_shared_memory(kernel, sizeof(ForwardShared<dim>), "attention_forward");
    kernel<<<blocks, threads, sizeof(ForwardShared<dim>), stream_of(exec)>>>(q_map, k_map, v_map, arguments);
  };
  if (shape.head_dim == 64) {
    launch.operator()<64>();
  } else {
    launch.operator()<128>();
  }
  check_launch("attention_forward");
}

}  // namespace caravan::cuda
