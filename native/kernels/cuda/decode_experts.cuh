// The adapters of the experts that a token chose, in decode_layers.cu.
#pragma once

#include "kernels/cuda/decode_attention.cuh"

namespace caravan::cuda::decode {

#if __CUDA_ARCH__ >= 900

template <int N>
class ExpertParts : public AttentionPart<N> {
 public:
  using Base = AttentionPart<N>;
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
  using Base::stage_x;
  using Base::tid;
  using Base::warp;

  /// Every block chooses for itself, and asks for its rows of the chosen adapters.
  __device__ void choose_experts() {
    float* const logits = s.partial;  // (n, E): whatever stood there is added up
    for (int i = tid; i < g.n * g.experts; i += computing) logits[i] = __ldcg(g.router_logits + i);
    sync_computing();
    if (tid < g.n) {
      int* const chosen = s.chosen + tid * g.top_k;
      float* const w = s.weights + tid * g.top_k;
      for (int k = 0; k < g.top_k; ++k) {
        int best = -1;
        float at_best = 0.0f;
        for (int e = 0; e < g.experts; ++e) {
          bool taken = false;
          for (int earlier = 0; earlier < k; ++earlier) taken = taken || chosen[earlier] == e;
          const float logit = logits[tid * g.experts + e];
          if (taken || (best >= 0 && !(logit > at_best))) continue;
          best = e;
          at_best = logit;
        }
        chosen[k] = best;
        w[k] = at_best;
      }
      const float largest = w[0];
      float sum = 0.0f;
      for (int k = 0; k < g.top_k; ++k) sum += w[k] = expf(w[k] - largest);
      for (int k = 0; k < g.top_k; ++k) w[k] /= sum;
      if (block == 0) {
        const int64_t to = (static_cast<int64_t>(index) * g.n + tid) * g.top_k;
        for (int k = 0; k < g.top_k; ++k) g.chosen[to + k] = chosen[k], g.weights[to + k] = w[k];
      }
    }
    sync_computing();
    if (tid == 0) {
      int distinct = 0;
      for (int slot = 0; slot < g.n * g.top_k; ++slot) {
        int at = 0;
        while (at < distinct && s.lists[1 + at] != s.chosen[slot]) ++at;
        if (at == distinct) {
          s.lists[1 + at] = s.chosen[slot];
          s.lists[1 + most_slots + at] = 0;
          ++distinct;
        }
        s.lists[1 + most_slots + at] |= 1 << (slot / g.top_k);
      }
      s.lists[0] = distinct;
    }
    sync_computing();
    const int rows = s.lists[0] * g.adapter_dim, lines = g.hidden / 64;
    for (int i = tid;; i += computing) {  // by the order in which warps take rows
      const int unit = block + i / lines * grid;
      if (unit >= rows) break;
      const int64_t row =
          static_cast<int64_t>(s.lists[1 + unit / g.adapter_dim]) * g.adapter_dim + unit % g.adapter_dim;
      prefetch(s.layer->adapter_down + row * g.hidden + i % lines * 64);
    }
    const int up_lines = (g.adapter_dim + 63) / 64 * s.lists[0];
    for (int i = tid;; i += computing) {
      const int column = block + i / up_lines * grid;
      if (column >= g.hidden) break;
      const int expert = s.lists[1 + i % up_lines / ((g.adapter_dim + 63) / 64)];
      prefetch(s.layer->adapter_up + (static_cast<int64_t>(expert) * g.hidden + column) * g.adapter_dim +
               i % up_lines % ((g.adapter_dim + 63) / 64) * 64);
    }
  }

  /// A warp takes a row of one expert, for all tokens that chose it.
  __device__ void adapters_down() {
    stage_x(g.ffn, g.hidden, 0, g.hidden, nullptr);
    const int rows = s.lists[0] * g.adapter_dim;
    for (int unit = block + warp * grid; unit < rows; unit += warps * grid) {
      const int at = unit / g.adapter_dim, a = unit % g.adapter_dim;
      const int expert = s.lists[1 + at], tokens = s.lists[1 + most_slots + at];
      const bf16* const row = s.layer->adapter_down + (static_cast<int64_t>(expert) * g.adapter_dim + a) * g.hidden;
      float sum[N] = {};
      constexpr int ahead = 8;
      for (int start = lane * 8; start < g.hidden; start += 256 * ahead) {
        uint4 piece[ahead];
#pragma unroll
        for (int j = 0; j < ahead; ++j) {
          piece[j] = start + j * 256 < g.hidden ? load_streaming(row + start + j * 256) : uint4{0, 0, 0, 0};
        }
#pragma unroll
        for (int j = 0; j < ahead; ++j) {
          if (start + j * 256 >= g.hidden) break;
#pragma unroll
          for (int t = 0; t < N; ++t) {
            if ((tokens >> t & 1) == 0) continue;
            sum[t] = dot_8(piece[j], *reinterpret_cast<const uint4*>(s.x + t * g.x_stride + start + j * 256), sum[t]);
          }
        }
      }
#pragma unroll
      for (int t = 0; t < N; ++t) {
        if ((tokens >> t & 1) == 0) continue;
        const float hidden = in_bf16(warp_sum(sum[t]) * x_unscale);
        int slot = 0;
        while (s.chosen[t * g.top_k + slot] != expert) ++slot;
        if (lane == 0) {
          g.adapted[static_cast<int64_t>(t * g.top_k + slot) * g.adapter_dim + a] =
              rounded<bf16>(0.5f * hidden * (1.0f + erff(hidden * 0.70710678118654752f)));
        }
      }
    }
  }

  /// A warp takes a column of the stream.
  __device__ void adapters_up() {
    bf16* const h = reinterpret_cast<bf16*>(s.x);  // (n * K, A)
    for (int i = tid * 8; i < g.n * g.top_k * g.adapter_dim; i += computing * 8) {
      *reinterpret_cast<uint4*>(h + i) = load_shared_result(g.adapted + i);
    }
    sync_computing();
    for (int column = block + warp * grid; column < g.hidden; column += warps * grid) {
      for (int t = 0; t < g.n; ++t) {
        float sum = 0.0f;
        for (int k = 0; k < g.top_k; ++k) {
          const int slot = t * g.top_k + k;
          const bf16* const row =
              s.layer->adapter_up + (static_cast<int64_t>(s.chosen[slot]) * g.hidden + column) * g.adapter_dim;
          float dot = 0.0f;
          for (int a = lane * 8; a < g.adapter_dim; a += 256) {
            const uint4 w = __ldg(reinterpret_cast<const uint4*>(row + a));
            const uint4 v = *reinterpret_cast<const uint4*>(h + slot * g.adapter_dim + a);
#pragma unroll
            for (int i = 0; i < 8; ++i) dot = fmaf(half_of((&w.x)[i / 2], i % 2), half_of((&v.x)[i / 2], i % 2), dot);
          }
          sum = __fadd_rn(sum, __fmul_rn(s.weights[slot], in_bf16(warp_sum(dot))));
        }
        bf16* const to = g.x + static_cast<int64_t>(t) * g.hidden + column;
        if (lane == 0) *to = rounded<bf16>(__fadd_rn(load_shared_result_one(to), __fmul_rn(g.adapter_scale, sum)));
      }
    }
  }
};

#endif

}  // namespace caravan::cuda::decode
