// Attention in decode_layers.cu: queries and new keys are turned, new rows go to the caches, and all of them are read.
#pragma once

#include "kernels/cuda/decode_weights.cuh"

namespace caravan::cuda::decode {

#if __CUDA_ARCH__ >= 900

template <int N>
class AttentionPart : public WeightParts<N> {
 public:
  using Base = WeightParts<N>;
  using Base::Base;

 protected:
  using Base::block;
  using Base::g;
  using Base::grid;
  using Base::index;
  using Base::kv_size;
  using Base::lane;
  using Base::q_size;
  using Base::s;
  using Base::tid;
  using Base::warp;

  __device__ int first_split_of(int position) const {
    return s.layer->window > 0 && position >= s.layer->window ? (position - s.layer->window + 1) / split_keys : 0;
  }

  __device__ void attend() {
    for (int at = warp * grid + block;; at += warps * grid) {
      int i = 0, unit = at, splits = 0;
      for (; i < g.n; ++i) {
        const int position = g.positions[i];
        splits = position / split_keys + 1 - first_split_of(position);
        if (unit < g.heads * splits) break;
        unit -= g.heads * splits;
      }
      if (i == g.n) return;
      g.head_dim == 128 ? this->template attend_split<16>(i, unit % g.heads, unit / g.heads, splits)
                        : this->template attend_split<8>(i, unit % g.heads, unit / g.heads, splits);
    }
  }

  /// Eight channels of a head turned by the token's angle, as bf16.
  template <int lanes>
  __device__ void turned(float (&v)[8], const bf16* head, int angle_row) {
    constexpr int half = lanes * 4;
    const int channel = lane % lanes * 8;
    const uint4 piece = load_shared_result(head + channel);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = half_of((&piece.x)[i / 2], i % 2);
    if (s.layer->rotates == 0) return;
    const int angle = angle_row * half + channel % half;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float other = __shfl_xor_sync(all_lanes, v[i], lanes / 2);
      const float c = g.cos[angle + i], sn = g.sin[angle + i];
      const float turned_value = channel < half ? __fsub_rn(__fmul_rn(v[i], c), __fmul_rn(other, sn))
                                                : __fadd_rn(__fmul_rn(v[i], c), __fmul_rn(other, sn));
      v[i] = in_bf16(turned_value);
    }
  }

  template <int lanes>
  __device__ void attend_split(int i, int head, int split, int splits) {
    constexpr int at_once = 32 / lanes, d = lanes * 8, batch = 8;
    const int position = g.positions[i], kv_head = head / (g.heads / g.kv_heads);
    const int channel = lane % lanes * 8, group = lane / lanes;
    const int first = (first_split_of(position) + split) * split_keys;
    const int lowest = s.layer->window > 0 ? max(0, position - s.layer->window + 1) : 0;
    const int keys = min(split_keys, position + 1 - first);
    const int angle_row = g.angle_rows[i];
    const CacheView cache = g.caches[static_cast<int64_t>(index) * g.cache_stride + i];
    auto* const cached_keys = static_cast<bf16*>(cache.keys);
    auto* const cached_values = static_cast<bf16*>(cache.values);
    const bf16* const row = g.qkv + i * (q_size + 2 * kv_size);
    const auto place = [&](int key) {
      return (static_cast<int64_t>(first + key) * g.kv_heads + kv_head) * d + channel;
    };
    float* const scores = reinterpret_cast<float*>(s.x) + warp * split_keys;

    float query[8], new_key[8];
    uint4 new_value = {};
    turned<lanes>(query, row + head * d, angle_row);
    const bool has_new = first + keys > position;
    if (has_new) {
      turned<lanes>(new_key, row + q_size + kv_head * d, angle_row);
      new_value = load_shared_result(row + q_size + kv_size + kv_head * d + channel);
      if (head % (g.heads / g.kv_heads) == 0 && group == 0) {
        uint4 packed;
#pragma unroll
        for (int j = 0; j < 4; ++j) (&packed.x)[j] = round_pair(new_key[2 * j], new_key[2 * j + 1]);
        *reinterpret_cast<uint4*>(cached_keys + place(keys - 1)) = packed;
        *reinterpret_cast<uint4*>(cached_values + place(keys - 1)) = new_value;
      }
    }
    const int old_keys = has_new ? keys - 1 : keys;
    float largest = -INFINITY;
    for (int start = 0; start < keys; start += at_once * batch) {
      uint4 piece[batch];
#pragma unroll
      for (int b = 0; b < batch; ++b) {
        const int key = start + b * at_once + group;
        piece[b] = key < old_keys ? load_streaming(cached_keys + place(key)) : uint4{0, 0, 0, 0};
      }
#pragma unroll
      for (int b = 0; b < batch; ++b) {
        const int key = start + b * at_once + group;
        float sum = 0.0f;
#pragma unroll
        for (int c = 0; c < 8; ++c) {
          const float k = has_new && key == keys - 1 ? new_key[c] : half_of((&piece[b].x)[c / 2], c % 2);
          sum = fmaf(query[c], k, sum);
        }
#pragma unroll
        for (int step = lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(all_lanes, sum, step);
        const bool seen = key < keys && first + key >= lowest;
        const float score = seen ? g.attention_scale * sum : -INFINITY;
        largest = fmaxf(largest, score);
        if (lane % lanes == 0 && key < split_keys) scores[key] = score;
      }
    }
    __syncwarp();
#pragma unroll
    for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(all_lanes, largest, step));
    const float base = largest == -INFINITY ? 0.0f : largest;
    float total = 0.0f;
    for (int key = lane; key < keys; key += 32) {
      const float e = expf(scores[key] - base);
      scores[key] = e;
      total += e;
    }
    total = warp_sum(total);
    __syncwarp();
    float sums[8] = {};
    for (int start = 0; start < keys; start += at_once * batch) {
      uint4 piece[batch];
#pragma unroll
      for (int b = 0; b < batch; ++b) {
        const int key = start + b * at_once + group;
        piece[b] = key < old_keys ? load_streaming(cached_values + place(key))
                                  : (has_new && key == keys - 1 ? new_value : uint4{0, 0, 0, 0});
      }
#pragma unroll
      for (int b = 0; b < batch; ++b) {
        const int key = start + b * at_once + group;
        const float weight = key < keys ? scores[key] : 0.0f;
#pragma unroll
        for (int c = 0; c < 8; ++c) sums[c] = fmaf(weight, half_of((&piece[b].x)[c / 2], c % 2), sums[c]);
      }
    }
#pragma unroll
    for (int c = 0; c < 8; ++c) {
#pragma unroll
      for (int step = lanes; step < 32; step *= 2) sums[c] += __shfl_xor_sync(all_lanes, sums[c], step);
    }
    bf16* const out = g.attended + static_cast<int64_t>(i) * q_size + head * d;
    if (splits == 1) {
      if (group == 0) {
        float result[8];
#pragma unroll
        for (int c = 0; c < 8; ++c) result[c] = sums[c] / total;
        store(out + channel, result);
      }
      __syncwarp();  // scores are written again
      return;
    }
    float* const partials = g.partials + static_cast<int64_t>(i * g.heads + head) * g.splits * (d + 2);
    float* const own = partials + split * (d + 2);
    if (lane == 0) own[0] = largest, own[1] = total;
    if (group == 0) {
#pragma unroll
      for (int c = 0; c < 8; ++c) own[2 + channel + c] = sums[c];
    }
    __syncwarp();
    int before = 0;
    if (lane == 0) {
      __threadfence();
      before = atomicAdd(g.head_done + i * g.heads + head, 1);
      __threadfence();
    }
    before = __shfl_sync(all_lanes, before, 0);
    if (before != splits - 1) return;
    if (lane == 0) g.head_done[i * g.heads + head] = 0;
    join<d>(out, partials, splits);
  }

  /// In the order of the splits, whoever was last.
  template <int d>
  __device__ void join(bf16* out, const float* partials, int splits) {
    constexpr int each = d / 32;
    float largest = -INFINITY;
    for (int split = lane; split < splits; split += 32) largest = fmaxf(largest, __ldcg(partials + split * (d + 2)));
    largest = warp_max(largest);
    float total = 0.0f, sums[each] = {};
#pragma unroll 4
    for (int split = 0; split < splits; ++split) {
      const float* const partial = partials + split * (d + 2);
      const float weight = expf(__ldcg(partial) - largest);
      total = fmaf(weight, __ldcg(partial + 1), total);
#pragma unroll
      for (int c = 0; c < each; ++c) sums[c] = fmaf(weight, __ldcg(partial + 2 + c * 32 + lane), sums[c]);
    }
#pragma unroll
    for (int c = 0; c < each; ++c) out[c * 32 + lane] = rounded<bf16>(sums[c] / total);
  }
};

#endif

}  // namespace caravan::cuda::decode
