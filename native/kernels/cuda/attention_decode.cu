// Decoding: a block takes one split of the cache for one key head and up to eight of the queries that read it, and
// leaves a partial softmax; the splits are joined in order. Splits have a fixed size, so that an answer's bits depend on
// the shapes alone.
#include <algorithm>

#include "kernels/cuda/attention_tiles.cuh"

namespace caravan::cuda {

namespace {

constexpr int split_keys = 128;
constexpr int threads = 128;
constexpr int block_queries = 8;
constexpr int piece = 8;  // channels a lane holds of a row
constexpr int batch = 4;  // rows whose loads a lane has in flight

template <typename T>
__device__ __forceinline__ void load_piece(float (&x)[piece], const T* row, int channel, int d, bool vector) {
  if (vector) {  // d is a multiple of 8 then
    if (channel >= d) {
#pragma unroll
      for (int i = 0; i < piece; ++i) x[i] = 0.0f;
    } else if constexpr (sizeof(T) == 4) {
      const float4 low = *reinterpret_cast<const float4*>(row + channel);
      const float4 high = *reinterpret_cast<const float4*>(row + channel + 4);
      x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
      x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
    } else {
      const uint4 words = *reinterpret_cast<const uint4*>(row + channel);
      const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        x[2 * i] = __uint_as_float(word[i] << 16);
        x[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < piece; ++i) x[i] = channel + i < d ? static_cast<float>(row[channel + i]) : 0.0f;
  }
}

/// One row of a partial: the split's maximum (of scores times scale), its sum of exponentials, then head_dim sums.
__host__ __device__ constexpr int64_t partial_floats(int64_t d) { return d + 2; }

/// `lanes` lanes share a row of the cache. partials (queries * heads, splits, head_dim + 2).
template <typename T, int lanes>
__global__ void __launch_bounds__(threads)
    decode_kernel(float* partials, const T* q, const T* k, const T* v, int first_split, int splits, int past,
                  int queries, AttentionParams p, bool vector) {
  constexpr int groups = threads / lanes;  // of lanes, each with its own rows
  __shared__ float scores[block_queries][split_keys];
  __shared__ float statistics[block_queries][2];
  __shared__ float joined[block_queries][lanes * piece];
  const int d = p.head_dim, kv_head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first = (first_split + static_cast<int>(blockIdx.x)) * split_keys;
  const int keys = min(split_keys, past + queries - first);
  const int row0 = static_cast<int>(blockIdx.z) * block_queries;  // rows: query-major, then the heads of the group
  const int rows = min(block_queries, queries * p.group - row0);
  const int group = threadIdx.x / lanes, channel = threadIdx.x % lanes * piece;
  const auto pair_of = [&](int row) {
    return static_cast<int64_t>(row / p.group) * p.heads + kv_head * p.group + row % p.group;
  };
  const auto cache_row = [&](const T* cache, int key) {
    return cache + (static_cast<int64_t>(first + key) * p.kv_heads + kv_head) * d;
  };

  float query[block_queries][piece];
#pragma unroll
  for (int r = 0; r < block_queries; ++r) {
    load_piece(query[r], q + pair_of(row0 + min(r, rows - 1)) * d, channel, d, vector);
  }
#pragma unroll 1
  for (int begin = 0; begin < keys; begin += groups * batch) {
    const int start = begin + group;
    float x[batch][piece];
#pragma unroll
    for (int b = 0; b < batch; ++b) {
      load_piece(x[b], cache_row(k, min(start + b * groups, keys - 1)), channel, d, vector);
    }
#pragma unroll
    for (int b = 0; b < batch; ++b) {
      const int key = start + b * groups;
#pragma unroll
      for (int r = 0; r < block_queries; ++r) {
        if (r >= rows) break;
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < piece; ++i) sum = fmaf(query[r][i], x[b][i], sum);
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
  for (int begin = 0; begin < keys; begin += groups * batch) {
    const int start = begin + group;
    float x[batch][piece];
#pragma unroll
    for (int b = 0; b < batch; ++b) {
      load_piece(x[b], cache_row(v, min(start + b * groups, keys - 1)), channel, d, vector);
    }
#pragma unroll
    for (int b = 0; b < batch; ++b) {
      const int key = start + b * groups;
      if (key >= keys) break;
#pragma unroll
      for (int r = 0; r < block_queries; ++r) {
        if (r >= rows) break;
        const float weight = scores[r][key];
#pragma unroll
        for (int i = 0; i < piece; ++i) sums[r][i] = fmaf(weight, x[b][i], sums[r][i]);
      }
    }
  }
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

template <typename T>
__global__ void join_kernel(T* out, const float* partials, int splits, int d) {
  const float* const first = partials + static_cast<int64_t>(blockIdx.x) * splits * partial_floats(d);
  float largest = -INFINITY;
  for (int s = 0; s < splits; ++s) largest = fmaxf(largest, first[s * partial_floats(d)]);
  float total = 0.0f, sum = 0.0f;
  for (int s = 0; s < splits; ++s) {
    const float* const partial = first + s * partial_floats(d);
    const float weight = expf(partial[0] - largest);
    total = fmaf(weight, partial[1], total);
    sum = fmaf(weight, partial[2 + threadIdx.x], sum);
  }
  out[static_cast<int64_t>(blockIdx.x) * d + threadIdx.x] = T(sum / total);
}

template <typename F>
void with_lanes(int64_t head_dim, F&& f) {
  if (head_dim <= 32) return f.template operator()<4>();
  if (head_dim <= 64) return f.template operator()<8>();
  if (head_dim <= 128) return f.template operator()<16>();
  return f.template operator()<32>();
}

}  // namespace

void attention_decode_split(const Exec& exec, Ptr out, ConstPtr q, ConstPtr k_cache, ConstPtr v_cache, int64_t past,
                            int64_t n, const AttentionShape& shape) {
  const int64_t first_key = shape.window > 0 ? std::max<int64_t>(0, past - shape.window + 1) : 0;
  const int first_split = static_cast<int>(first_key / split_keys);
  const int splits = static_cast<int>((past + n + split_keys - 1) / split_keys) - first_split;
  float* const partials = exec.cuda->workspace<float>(n * shape.heads * splits * partial_floats(shape.head_dim));
  const int64_t rows = n * (shape.heads / shape.kv_heads);
  const dim3 grid(static_cast<unsigned>(splits), static_cast<unsigned>(shape.kv_heads),
                  static_cast<unsigned>((rows + block_queries - 1) / block_queries));
  bool vector = shape.head_dim % piece == 0;
  for (const void* array : {q.data, k_cache.data, v_cache.data}) {
    vector = vector && reinterpret_cast<uintptr_t>(array) % 16 == 0;
  }
  dispatch(q.dtype, [&]<typename T>() {
    with_lanes(shape.head_dim, [&]<int lanes>() {
      decode_kernel<T, lanes><<<grid, threads, 0, stream_of(exec)>>>(
          partials, q.as<T>(), k_cache.as<T>(), v_cache.as<T>(), first_split, splits, static_cast<int>(past),
          static_cast<int>(n), attention_params(shape, n, past + n), vector);
    });
    join_kernel<<<static_cast<unsigned>(n * shape.heads), static_cast<unsigned>(shape.head_dim), 0, stream_of(exec)>>>(
        out.as<T>(), partials, splits, static_cast<int>(shape.head_dim));
  });
  check_launch("attention_decode");
}

}  // namespace caravan::cuda
