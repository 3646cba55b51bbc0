// Decoding: a block takes one split of the cache for one key head and up to eight of the queries that read it, and
// leaves a partial softmax; the splits are joined in order. Splits have a fixed size, so that an answer's bits depend on
// the shapes alone.
#include <algorithm>

#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/decoding.h"

namespace caravan::cuda {

namespace {

constexpr int split_keys = 64;
constexpr int threads = 128;
constexpr int piece = 8;  // channels a lane holds of a row

/// A lane's channels of a row as they lie in memory.
template <typename T>
struct Piece {
  static constexpr int words = piece * sizeof(T) / 4;
  uint32_t word[words];

  __device__ __forceinline__ float operator[](int i) const {
    if constexpr (sizeof(T) == 4) return __uint_as_float(word[i]);
    return __uint_as_float(i % 2 == 0 ? word[i / 2] << 16 : word[i / 2] & 0xffff0000u);
  }
};

/// `vector`: d is a multiple of a piece and rows are aligned.
template <typename T>
__device__ __forceinline__ Piece<T> load_piece(const T* row, int channel, int d, bool vector) {
  Piece<T> x = {};
  if (vector) {
    if (channel < d) {
#pragma unroll
      for (int i = 0; i < Piece<T>::words; i += 4) {
        const uint4 four = *reinterpret_cast<const uint4*>(row + channel + i * 4 / static_cast<int>(sizeof(T)));
        x.word[i] = four.x, x.word[i + 1] = four.y, x.word[i + 2] = four.z, x.word[i + 3] = four.w;
      }
    }
    return x;
  }
#pragma unroll
  for (int i = 0; i < piece; ++i) {
    if (channel + i >= d) break;
    if constexpr (sizeof(T) == 4) {
      x.word[i] = __float_as_uint(row[channel + i]);
    } else {
      x.word[i / 2] |= uint32_t{row[channel + i].bits} << (i % 2 * 16);
    }
  }
  return x;
}

/// One row of a partial: the split's maximum (of scores times scale), its sum of exponentials, then head_dim sums.
__host__ __device__ constexpr int64_t partial_floats(int64_t d) { return d + 2; }

/// The first split that a query at `position` sees.
__host__ __device__ inline int first_split_of(int window, int position) {
  return window > 0 && position >= window ? (position - window + 1) / split_keys : 0;
}

/// Queries of several conversations, each with a cache of its own; null caches: all of one.
struct Each {
  const CacheView* caches = nullptr;
  const int32_t* positions = nullptr;
  int parts = 0;  // blocks that share a conversation's key head
};

/// `lanes` lanes share a row of the cache; each has its first batch of keys and of values in flight from the start. partials (queries * heads, splits, head_dim + 2).
template <typename T, int lanes, int block_queries>
__global__ void __launch_bounds__(threads)
    decode_kernel(float* partials, const T* q, const T* k, const T* v, int first_split, int splits, int past,
                  int queries, AttentionParams p, bool vector, Each each) {
  constexpr int groups = threads / lanes;  // of lanes, each with its own rows
  constexpr int batch = sizeof(T) == 4 ? std::min(4, split_keys / groups) : std::min(8, split_keys / groups);
  __shared__ float scores[block_queries][split_keys];
  __shared__ float statistics[block_queries][2];
  __shared__ float joined[block_queries][lanes * piece];
  const int d = p.head_dim, kv_head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int part = static_cast<int>(blockIdx.z);  // of the queries that read this key head
  if (each.caches != nullptr) {
    const int i = part / each.parts;
    part %= each.parts;
    past = each.positions[i];
    first_split = first_split_of(p.window, past);
    if ((first_split + static_cast<int>(blockIdx.x)) * split_keys > past) return;
    k = static_cast<const T*>(each.caches[i].keys);
    v = static_cast<const T*>(each.caches[i].values);
    q += static_cast<int64_t>(i) * p.heads * d;
    partials += static_cast<int64_t>(i) * p.heads * splits * partial_floats(d);
  }
  const int first = (first_split + static_cast<int>(blockIdx.x)) * split_keys;
  const int keys = min(split_keys, past + queries - first);
  const int row0 = part * block_queries;  // rows: query-major, then the heads of the group
  const int rows = min(block_queries, queries * p.group - row0);
  const int group = threadIdx.x / lanes, channel = threadIdx.x % lanes * piece;
  const auto pair_of = [&](int row) {
    return static_cast<int64_t>(row / p.group) * p.heads + kv_head * p.group + row % p.group;
  };
  const auto cache_row = [&](const T* cache, int key) {
    return cache + (static_cast<int64_t>(first + key) * p.kv_heads + kv_head) * d;
  };

  const auto load_batch = [&](Piece<T>(&x)[batch], const T* cache, int start) {
#pragma unroll
    for (int b = 0; b < batch; ++b) {
      x[b] = load_piece(cache_row(cache, min(start + b * groups, keys - 1)), channel, d, vector);
    }
  };
  Piece<T> keys_ahead[batch], values_ahead[batch], query[block_queries];
  load_batch(keys_ahead, k, group);
  load_batch(values_ahead, v, group);
#pragma unroll
  for (int r = 0; r < block_queries; ++r) {
    query[r] = load_piece(q + pair_of(row0 + min(r, rows - 1)) * d, channel, d, vector);
  }
#pragma unroll 1
  for (int start = group; start < split_keys; start += groups * batch) {  // all lanes alike: they exchange sums
    if (start >= groups) load_batch(keys_ahead, k, start);
#pragma unroll
    for (int b = 0; b < batch; ++b) {
      const int key = start + b * groups;
#pragma unroll
      for (int r = 0; r < block_queries; ++r) {
        if (r >= rows) break;
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < piece; ++i) sum = fmaf(query[r][i], keys_ahead[b][i], sum);
#pragma unroll
        for (int step = lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
        if (key < keys && threadIdx.x % lanes == 0) {
          const int position = past + (row0 + r) / p.group;
          scores[r][key] = sees(p, position, first + key) ? p.scale * sum : -INFINITY;
        }
      }
    }
  }
  __syncthreads();
  for (int r = warp; r < rows; r += threads / 32) {
    float largest = -INFINITY;
    for (int j = lane; j < keys; j += 32) largest = fmaxf(largest, scores[r][j]);
    for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    const float base = largest == -INFINITY ? 0.0f : largest;  // the query sees nothing of this split
    float total = 0.0f;
    for (int j = lane; j < keys; j += 32) {
      const float e = expf(scores[r][j] - base);
      scores[r][j] = e;
      total += e;
    }
    for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
    if (lane == 0) statistics[r][0] = largest, statistics[r][1] = total;
  }
  __syncthreads();
  float sums[block_queries][piece] = {};
#pragma unroll 1
  for (int start = group; start < keys; start += groups * batch) {
    if (start >= groups) load_batch(values_ahead, v, start);
#pragma unroll
    for (int b = 0; b < batch; ++b) {
      const int key = start + b * groups;
      if (key >= keys) break;
#pragma unroll
      for (int r = 0; r < block_queries; ++r) {
        if (r >= rows) break;
        const float weight = scores[r][key];
#pragma unroll
        for (int i = 0; i < piece; ++i) sums[r][i] = fmaf(weight, values_ahead[b][i], sums[r][i]);
      }
    }
  }
  __syncwarp();
  // The groups' sums: within a warp by shuffles, then warp after warp.
#pragma unroll
  for (int r = 0; r < block_queries; ++r) {
    if (r >= rows) break;
#pragma unroll
    for (int i = 0; i < piece; ++i) {
#pragma unroll
      for (int step = lanes; step < 32; step *= 2) sums[r][i] += __shfl_xor_sync(0xffffffffu, sums[r][i], step);
    }
  }
  for (int w = 0; w < threads / 32; ++w) {
    if (warp == w && lane < lanes) {
#pragma unroll
      for (int r = 0; r < block_queries; ++r) {
        if (r >= rows) break;
#pragma unroll
        for (int i = 0; i < piece; ++i) joined[r][channel + i] = (w == 0 ? 0.0f : joined[r][channel + i]) + sums[r][i];
      }
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < rows * partial_floats(d); i += threads) {
    const int r = i / static_cast<int>(partial_floats(d)), at = i % static_cast<int>(partial_floats(d));
    float* const partial = partials + (pair_of(row0 + r) * splits + blockIdx.x) * partial_floats(d);
    partial[at] = at < 2 ? statistics[r][at] : joined[r][at - 2];
  }
}

/// Sum or maximum over a block of whole warps, the same for all; in one order.
template <bool maximum>
__device__ float over_block(float x, float* per_warp) {
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, x, step);
    x = maximum ? fmaxf(x, other) : x + other;
  }
  if (threadIdx.x % 32 == 0) per_warp[threadIdx.x / 32] = x;
  __syncthreads();
  x = per_warp[0];
  for (unsigned w = 1; w < blockDim.x / 32; ++w) x = maximum ? fmaxf(x, per_warp[w]) : x + per_warp[w];
  __syncthreads();
  return x;
}

/// A block joins the splits of one query and head. `positions`: of queries whose splits end with their own.
template <typename T>
__global__ void join_kernel(T* out, const float* partials, int splits, int d, const int32_t* positions, int heads,
                            int window) {
  extern __shared__ float weights[];  // of the splits
  __shared__ float per_warp[8];
  const float* const first = partials + static_cast<int64_t>(blockIdx.x) * splits * partial_floats(d);
  if (positions != nullptr) {
    const int position = positions[blockIdx.x / heads];
    splits = position / split_keys + 1 - first_split_of(window, position);
  }
  float largest = -INFINITY, total = 0.0f, sum = 0.0f;
  for (int s = threadIdx.x; s < splits; s += blockDim.x) largest = fmaxf(largest, first[s * partial_floats(d)]);
  largest = over_block<true>(largest, per_warp);
  for (int s = threadIdx.x; s < splits; s += blockDim.x) {
    weights[s] = expf(first[s * partial_floats(d)] - largest);
    total = fmaf(weights[s], first[s * partial_floats(d) + 1], total);
  }
  total = over_block<false>(total, per_warp);
  if (static_cast<int>(threadIdx.x) >= d) return;
#pragma unroll 8
  for (int s = 0; s < splits; ++s) sum = fmaf(weights[s], first[s * partial_floats(d) + 2 + threadIdx.x], sum);
  out[static_cast<int64_t>(blockIdx.x) * d + threadIdx.x] = T(sum / total);
}

template <typename F>
void with_lanes(int64_t head_dim, F&& f) {
  if (head_dim <= 32) return f.template operator()<4>();
  if (head_dim <= 64) return f.template operator()<8>();
  if (head_dim <= 128) return f.template operator()<16>();
  return f.template operator()<32>();
}

/// `splits`: at most so many of each query. Of `each` every conversation has one query.
void enqueue_decode(const Exec& exec, Ptr out, ConstPtr q, ConstPtr k_cache, ConstPtr v_cache, int first_split,
                    int splits, int64_t past, int64_t n, const AttentionShape& shape, Each each, bool vector) {
  float* const partials = exec.cuda->workspace<float>(n * shape.heads * splits * partial_floats(shape.head_dim));
  const bool alone = each.caches == nullptr;
  const int64_t rows = (alone ? n : 1) * (shape.heads / shape.kv_heads);
  const int queries = alone ? static_cast<int>(n) : 1;
  dispatch(q.dtype, [&]<typename T>() {
    with_lanes(shape.head_dim, [&]<int lanes>() {
      const auto launch = [&](auto kernel, int64_t block_queries) {
        each.parts = static_cast<int>((rows + block_queries - 1) / block_queries);
        const dim3 grid(static_cast<unsigned>(splits), static_cast<unsigned>(shape.kv_heads),
                        static_cast<unsigned>(alone ? each.parts : each.parts * n));
        kernel<<<grid, threads, 0, stream_of(exec)>>>(partials, q.as<T>(), k_cache.as<T>(), v_cache.as<T>(),
                                                      first_split, splits, static_cast<int>(past), queries,
                                                      attention_params(shape, n, past + n), vector, each);
      };
      if (rows == 1) {
        launch(decode_kernel<T, lanes, 1>, 1);
      } else {
        launch(decode_kernel<T, lanes, 8>, 8);
      }
    });
    const size_t weight_bytes = static_cast<size_t>(splits) * sizeof(float);
    allow_shared_memory(join_kernel<T>, weight_bytes, "attention_decode");
    join_kernel<<<static_cast<unsigned>(n * shape.heads), static_cast<unsigned>((shape.head_dim + 31) / 32 * 32),
                  weight_bytes, stream_of(exec)>>>(out.as<T>(), partials, splits, static_cast<int>(shape.head_dim),
                                                   each.positions, static_cast<int>(shape.heads),
                                                   static_cast<int>(shape.window));
  });
  check_launch("attention_decode");
}

bool whole_pieces(const AttentionShape& shape, std::initializer_list<const void*> arrays) {
  bool vector = shape.head_dim % piece == 0;
  for (const void* array : arrays) vector = vector && reinterpret_cast<uintptr_t>(array) % 16 == 0;
  return vector;
}

}  // namespace

void attention_decode_split(const Exec& exec, Ptr out, ConstPtr q, ConstPtr k_cache, ConstPtr v_cache, int64_t past,
                            int64_t n, const AttentionShape& shape) {
  const int first_split = first_split_of(static_cast<int>(shape.window), static_cast<int>(past));
  const int splits = static_cast<int>((past + n + split_keys - 1) / split_keys) - first_split;
  enqueue_decode(exec, out, q, k_cache, v_cache, first_split, splits, past, n, shape, {},
                 whole_pieces(shape, {q.data, k_cache.data, v_cache.data}));
}

void attention_decode_each(const Exec& exec, Ptr out, ConstPtr q, const CacheView* caches, const int32_t* positions,
                           int64_t n, int64_t most, const AttentionShape& shape) {
  if (n == 0) return;
  require_attention_head_dim(shape);
  int64_t splits = (most + split_keys - 1) / split_keys;
  if (shape.window > 0) splits = std::min(splits, (shape.window + split_keys - 2) / split_keys + 1);
  // Caches are allocations of their own: aligned.
  enqueue_decode(exec, out, q, {nullptr, q.dtype}, {nullptr, q.dtype}, 0, static_cast<int>(splits), most - 1, n, shape,
                 {caches, positions, 0}, whole_pieces(shape, {q.data}));
}

}  // namespace caravan::cuda
