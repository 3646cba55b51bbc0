// Attention without tensor cores: fp32, and bf16 whose rows are not whole 16-byte pieces. Everything in fp32.
#include "kernels/cuda/attention_tiles.cuh"

namespace caravan::cuda {

namespace {

// A block has 8 threads a row of its tile; thread (row, part) owns channels part, part + 8, .. of what the row sums.
constexpr int parts = 8;

constexpr int rows_for(int max_dim) { return max_dim > 128 ? 16 : 32; }

/// `rows` rows of one head from global row `first` on, zeros past `valid`; padded by one word against bank conflicts.
template <int rows, typename T>
__device__ void load_rows(float* to, const T* from, int64_t first, int valid, int head, int heads, int d) {
  for (int i = threadIdx.x; i < rows * d; i += rows * parts) {
    const int row = i / d, channel = i % d;
    to[row * (d + 1) + channel] =
        row < valid ? static_cast<float>(from[((first + row) * heads + head) * d + channel]) : 0.0f;
  }
}

__device__ __forceinline__ float dot_rows(const float* a, const float* b, int d) {
  float sum = 0.0f;
  for (int i = 0; i < d; ++i) sum = fmaf(a[i], b[i], sum);
  return sum;
}

template <typename T, int max_dim>
__global__ void __launch_bounds__(rows_for(max_dim) * parts)
    forward_simt_kernel(T* out, float* lse, const T* q, const T* k, const T* v, const AttentionTile* tiles, int slots,
                        AttentionParams p) {
  constexpr int R = rows_for(max_dim);
  const WorkItem item = work_item(p, blockIdx.x, slots, p.heads, p.group);
  const AttentionTile tile = tiles[item.slot];
  if (tile.keys == 0) return;
  extern __shared__ float shared[];
  const int d = p.head_dim, head = item.head, kv_head = head / p.group;
  float *const qs = shared, *const kv = qs + R * (d + 1), *const scores = kv + R * (d + 1);
  const int first_query = tile.index * R, rows = min(R, tile.queries() - first_query);
  const int row = threadIdx.x / parts, part = threadIdx.x % parts;
  const int position = tile.past + first_query + row;
  float sums[max_dim / parts] = {};
  float largest = -INFINITY, total = 0.0f;
  load_rows<R>(qs, q, tile.first + first_query, rows, head, p.heads, d);
  const int last = tile.past + first_query + rows - 1;
  for (int key = first_key(p, tile.past + first_query) / R * R; key <= last; key += R) {
    const int valid = min(R, tile.keys - key);
    __syncthreads();
    load_rows<R>(kv, k, tile.first + key, valid, kv_head, p.kv_heads, d);
    __syncthreads();
    float block_largest = -INFINITY;
    for (int j = part; j < R; j += parts) {
      float s = -INFINITY;
      if (row < rows && sees(p, position, key + j)) s = p.scale * dot_rows(qs + row * (d + 1), kv + j * (d + 1), d);
      scores[row * (R + 1) + j] = s;
      block_largest = fmaxf(block_largest, s);
    }
    for (int step = 1; step < parts; step *= 2) {
      block_largest = fmaxf(block_largest, __shfl_xor_sync(0xffffffffu, block_largest, step));
    }
    const float now = fmaxf(largest, block_largest);
    const float base = now == -INFINITY ? 0.0f : now;  // nothing seen yet: exp gives zeros, not NaN
    const float shrink = expf(largest - base);
    largest = now;
    float block_total = 0.0f;
    for (int j = part; j < R; j += parts) {
      const float e = expf(scores[row * (R + 1) + j] - base);
      scores[row * (R + 1) + j] = e;
      block_total += e;
    }
    for (int step = 1; step < parts; step *= 2) block_total += __shfl_xor_sync(0xffffffffu, block_total, step);
    total = total * shrink + block_total;
    __syncthreads();
    load_rows<R>(kv, v, tile.first + key, valid, kv_head, p.kv_heads, d);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < max_dim / parts; ++i) sums[i] *= shrink;
    for (int j = 0; j < valid; ++j) {
      const float weight = scores[row * (R + 1) + j];
#pragma unroll
      for (int i = 0; i < max_dim / parts; ++i) {
        const int channel = i * parts + part;
        if (channel < d) sums[i] = fmaf(weight, kv[j * (d + 1) + channel], sums[i]);
      }
    }
  }
  if (row >= rows) return;
  const int64_t query = tile.first + first_query + row;
#pragma unroll
  for (int i = 0; i < max_dim / parts; ++i) {
    const int channel = i * parts + part;
    if (channel < d) out[(query * p.heads + head) * d + channel] = T(sums[i] / total);
  }
  if (lse != nullptr && part == 0) lse[head * p.n + query] = largest + logf(total);
}

/// P and dS of R queries (rows of q, dout) and R keys: thread (row, part) does query `row`, keys part, part + 8, ..
template <int R>
__device__ void gradients_of_scores(float* probabilities, float* dscores, const float* qs, const float* ks,
                                    const float* vs, const float* douts, int rows, int keys, int position, int key,
                                    float lse, float delta, const AttentionParams& p) {
  const int row = threadIdx.x / parts, part = threadIdx.x % parts, d = p.head_dim;
  for (int j = part; j < R; j += parts) {
    float probability = 0.0f, dscore = 0.0f;
    if (row < rows && j < keys && sees(p, position, key + j)) {
      probability = expf(p.scale * dot_rows(qs + row * (d + 1), ks + j * (d + 1), d) - lse);
      dscore = p.scale * probability * (dot_rows(douts + row * (d + 1), vs + j * (d + 1), d) - delta);
    }
    if (probabilities != nullptr) probabilities[row * (R + 1) + j] = probability;
    dscores[row * (R + 1) + j] = dscore;
  }
}

/// dq of one tile of queries.
template <typename T, int max_dim>
__global__ void __launch_bounds__(rows_for(max_dim) * parts)
    backward_queries_simt_kernel(T* dq, const T* dout, const T* q, const T* k, const T* v, const float* lse,
                                 const float* delta, const AttentionTile* tiles, int slots, AttentionParams p) {
  constexpr int R = rows_for(max_dim);
  const WorkItem item = work_item(p, blockIdx.x, slots, p.heads, p.group);
  const AttentionTile tile = tiles[item.slot];
  if (tile.keys == 0) return;
  extern __shared__ float shared[];
  const int d = p.head_dim, head = item.head, kv_head = head / p.group, block = R * (d + 1);
  float *const qs = shared, *const douts = qs + block, *const ks = douts + block, *const vs = ks + block,
               *const dscores = vs + block;
  const int first_query = tile.index * R, rows = min(R, tile.keys - first_query);
  const int row = threadIdx.x / parts, part = threadIdx.x % parts;
  const int64_t query = tile.first + first_query + row;
  load_rows<R>(qs, q, tile.first + first_query, rows, head, p.heads, d);
  load_rows<R>(douts, dout, tile.first + first_query, rows, head, p.heads, d);
  const float row_lse = row < rows ? lse[head * p.n + query] : 0.0f;
  const float row_delta = row < rows ? delta[head * p.n + query] : 0.0f;
  float sums[max_dim / parts] = {};
  for (int key = first_key(p, first_query) / R * R; key < first_query + rows; key += R) {
    const int valid = min(R, tile.keys - key);
    __syncthreads();
    load_rows<R>(ks, k, tile.first + key, valid, kv_head, p.kv_heads, d);
    load_rows<R>(vs, v, tile.first + key, valid, kv_head, p.kv_heads, d);
    __syncthreads();
    gradients_of_scores<R>(nullptr, dscores, qs, ks, vs, douts, rows, valid, first_query + row, key, row_lse, row_delta,
                           p);
    __syncwarp();
    for (int j = 0; j < valid; ++j) {
      const float weight = dscores[row * (R + 1) + j];
#pragma unroll
      for (int i = 0; i < max_dim / parts; ++i) {
        const int channel = i * parts + part;
        if (channel < d) sums[i] = fmaf(weight, ks[j * (d + 1) + channel], sums[i]);
      }
    }
  }
  if (row >= rows) return;
#pragma unroll
  for (int i = 0; i < max_dim / parts; ++i) {
    const int channel = i * parts + part;
    if (channel < d) dq[(query * p.heads + head) * d + channel] = T(sums[i]);
  }
}

/// dk and dv of one tile of keys: over the heads of its group, then over the queries, in order.
template <typename T, int max_dim>
__global__ void __launch_bounds__(rows_for(max_dim) * parts)
    backward_keys_simt_kernel(T* dk, T* dv, const T* dout, const T* q, const T* k, const T* v, const float* lse,
                              const float* delta, const AttentionTile* tiles, int slots, AttentionParams p) {
  constexpr int R = rows_for(max_dim);
  const WorkItem item = work_item(p, blockIdx.x, slots, p.kv_heads, 1);
  const AttentionTile tile = tiles[item.slot];
  if (tile.keys == 0) return;
  extern __shared__ float shared[];
  const int d = p.head_dim, kv_head = item.head, block = R * (d + 1);
  float *const qs = shared, *const douts = qs + block, *const ks = douts + block, *const vs = ks + block,
               *const dscores = vs + block, *const probabilities = dscores + R * (R + 1);
  const int key = tile.index * R, keys = min(R, tile.keys - key);
  const int row = threadIdx.x / parts, part = threadIdx.x % parts;
  load_rows<R>(ks, k, tile.first + key, keys, kv_head, p.kv_heads, d);
  load_rows<R>(vs, v, tile.first + key, keys, kv_head, p.kv_heads, d);
  float dk_sums[max_dim / parts] = {}, dv_sums[max_dim / parts] = {};
  const int last = query_end(p, key + keys - 1, tile.keys);
  for (int head = kv_head * p.group; head < (kv_head + 1) * p.group; ++head) {
    for (int first_query = key; first_query < last; first_query += R) {
      const int rows = min(R, tile.keys - first_query);
      const int64_t query = tile.first + first_query + row;
      __syncthreads();
      load_rows<R>(qs, q, tile.first + first_query, rows, head, p.heads, d);
      load_rows<R>(douts, dout, tile.first + first_query, rows, head, p.heads, d);
      const float row_lse = row < rows ? lse[head * p.n + query] : 0.0f;
      const float row_delta = row < rows ? delta[head * p.n + query] : 0.0f;
      __syncthreads();
      gradients_of_scores<R>(probabilities, dscores, qs, ks, vs, douts, rows, keys, first_query + row, key, row_lse,
                             row_delta, p);
      __syncthreads();
      for (int j = 0; j < rows; ++j) {
        const float probability = probabilities[j * (R + 1) + row], dscore = dscores[j * (R + 1) + row];
#pragma unroll
        for (int i = 0; i < max_dim / parts; ++i) {
          const int channel = i * parts + part;
          if (channel < d) {
            dv_sums[i] = fmaf(probability, douts[j * (d + 1) + channel], dv_sums[i]);
            dk_sums[i] = fmaf(dscore, qs[j * (d + 1) + channel], dk_sums[i]);
          }
        }
      }
    }
  }
  if (row >= keys) return;
#pragma unroll
  for (int i = 0; i < max_dim / parts; ++i) {
    const int channel = i * parts + part;
    if (channel >= d) continue;
    const int64_t at = ((static_cast<int64_t>(tile.first) + key + row) * p.kv_heads + kv_head) * d + channel;
    dk[at] = T(dk_sums[i]);
    dv[at] = T(dv_sums[i]);
  }
}

template <typename T>
__global__ void delta_kernel(float* delta, const T* dout, const T* out, int64_t n, int heads, int d) {
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (pair >= n * heads) return;
  float sum = 0.0f;
  for (int i = threadIdx.x % 32; i < d; i += 32) {
    sum = fmaf(static_cast<float>(dout[pair * d + i]), static_cast<float>(out[pair * d + i]), sum);
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x % 32 == 0) delta[pair % heads * n + pair / heads] = sum;
}

/// Calls f with the smallest supported bound of head_dim.
template <typename F>
void with_max_dim(int64_t head_dim, F&& f) {
  if (head_dim <= 64) return f.template operator()<64>();
  if (head_dim <= 128) return f.template operator()<128>();
  return f.template operator()<256>();
}

}  // namespace

void attention_forward_simt(const Exec& exec, Ptr out, float* lse, ConstPtr q, ConstPtr k, ConstPtr v,
                            const int32_t* cu_seqlens, int64_t sequences, int64_t n, int64_t past,
                            const AttentionShape& shape) {
  const AttentionParams p = attention_params(shape, n, past + n);
  with_max_dim(shape.head_dim, [&]<int max_dim>() {
    constexpr int R = rows_for(max_dim);
    const int64_t slots = tile_slots(n, sequences, R);
    AttentionTile* tiles = exec.cuda->workspace<AttentionTile>(slots);
    attention_tiles(exec, tiles, cu_seqlens, sequences, n, past, R, TileOrder::last_first);
    const size_t bytes = (2 * R * (shape.head_dim + 1) + R * (R + 1)) * sizeof(float);
    dispatch(q.dtype, [&]<typename T>() {
      const auto kernel = forward_simt_kernel<T, max_dim>;
      allow_shared_memory(kernel, bytes, "attention_forward");
      kernel<<<static_cast<unsigned>(slots * shape.heads), R * parts, bytes, stream_of(exec)>>>(
          out.as<T>(), lse, q.as<T>(), k.as<T>(), v.as<T>(), tiles, static_cast<int>(slots), p);
    });
  });
  check_launch("attention_forward");
}

void attention_delta(const Exec& exec, float* delta, ConstPtr dout, ConstPtr out, int64_t n,
                     const AttentionShape& shape) {
  constexpr int warps = 8;
  const unsigned blocks = static_cast<unsigned>((n * shape.heads + warps - 1) / warps);
  dispatch(out.dtype, [&]<typename T>() {
    delta_kernel<<<blocks, warps * 32, 0, stream_of(exec)>>>(
        delta, dout.as<T>(), out.as<T>(), n, static_cast<int>(shape.heads), static_cast<int>(shape.head_dim));
  });
  check_launch("attention_backward's delta");
}

void attention_backward_simt(const Exec& exec, Ptr dq, Ptr dk, Ptr dv, ConstPtr dout, ConstPtr q, ConstPtr k,
                             ConstPtr v, ConstPtr out, const float* lse, const int32_t* cu_seqlens, int64_t sequences,
                             int64_t n, const AttentionShape& shape) {
  const AttentionParams p = attention_params(shape, n, n);
  with_max_dim(shape.head_dim, [&]<int max_dim>() {
    constexpr int R = rows_for(max_dim);
    const int64_t slots = tile_slots(n, sequences, R);
    AttentionTile* query_tiles = static_cast<AttentionTile*>(
        exec.cuda->workspace(2 * slots * sizeof(AttentionTile) + shape.heads * n * sizeof(float)));
    AttentionTile* key_tiles = query_tiles + slots;
    float* delta = reinterpret_cast<float*>(key_tiles + slots);
    attention_delta(exec, delta, dout, out, n, shape);
    attention_tiles(exec, query_tiles, cu_seqlens, sequences, n, 0, R, TileOrder::last_first);
    attention_tiles(exec, key_tiles, cu_seqlens, sequences, n, 0, R, TileOrder::first_first);
    const size_t bytes = (4 * R * (shape.head_dim + 1) + 2 * R * (R + 1)) * sizeof(float);
    dispatch(q.dtype, [&]<typename T>() {
      const auto queries_kernel = backward_queries_simt_kernel<T, max_dim>;
      allow_shared_memory(queries_kernel, bytes, "attention_backward");
      queries_kernel<<<static_cast<unsigned>(slots * shape.heads), R * parts, bytes, stream_of(exec)>>>(
          dq.as<T>(), dout.as<T>(), q.as<T>(), k.as<T>(), v.as<T>(), lse, delta, query_tiles, static_cast<int>(slots),
          p);
      const auto keys_kernel = backward_keys_simt_kernel<T, max_dim>;
      allow_shared_memory(keys_kernel, bytes, "attention_backward");
      keys_kernel<<<static_cast<unsigned>(slots * shape.kv_heads), R * parts, bytes, stream_of(exec)>>>(
          dk.as<T>(), dv.as<T>(), dout.as<T>(), q.as<T>(), k.as<T>(), v.as<T>(), lse, delta, key_tiles,
          static_cast<int>(slots), p);
    });
  });
  check_launch("attention_backward");
}

}  // namespace caravan::cuda
