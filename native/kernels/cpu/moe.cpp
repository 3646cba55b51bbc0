#include "kernels/moe.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/element.h"
#include "kernels/dropout.h"

namespace caravan::cpu {
namespace {

constexpr int64_t row_grain = 16;
/// Rows per partial sum: fixed, so that sums do not depend on the thread count.
constexpr int64_t sum_block = 256;

/// softmax over `count` logits, in f32 with the maximum taken out.
void softmax(float* out, const float* logits, int64_t count) {
  const float largest = *std::max_element(logits, logits + count);
  float sum = 0.0f;
  for (int64_t i = 0; i < count; ++i) sum += out[i] = std::exp(logits[i] - largest);
  for (int64_t i = 0; i < count; ++i) out[i] /= sum;
}

bool is_kept(const uint32_t* bits, int64_t channel) { return (bits[channel / 32] >> kept_bit(channel) & 1) != 0; }

/// sum (C) = the rows of one token's slots in their order, times its weights where there are any.
template <typename T>
void sum_of_rows(std::vector<float>& sum, ConstPtr rows, const float* weights, const int32_t* inverse, int64_t c,
                 int64_t top_k) {
  std::fill(sum.begin(), sum.end(), 0.0f);
  for (int64_t k = 0; k < top_k; ++k) {
    if (inverse[k] < 0) continue;
    const float w = weights ? weights[k] : 1.0f;
    const T* const from = rows.as<T>() + inverse[k] * c;
    for (int64_t j = 0; j < c; ++j) sum[static_cast<size_t>(j)] += w * static_cast<float>(from[j]);
  }
}

int64_t count_valid(const uint8_t* valid, int64_t n) {
  return valid ? n - std::count(valid, valid + n, uint8_t{0}) : n;
}

}  // namespace

void router_topk_forward(const Exec& exec, int32_t* experts, float* weights, const float* router_logits, int64_t n,
                         int64_t num_experts, int64_t top_k) {
  parallel_for(exec, n, row_grain, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      const float* logits = router_logits + t * num_experts;
      int32_t* chosen = experts + t * top_k;
      float* w = weights + t * top_k;
      for (int64_t k = 0; k < top_k; ++k) {
        int32_t best = -1;
        for (int32_t e = 0; e < num_experts; ++e) {
          if (std::find(chosen, chosen + k, e) != chosen + k) continue;
          if (best < 0 || logits[e] > logits[best]) best = e;
        }
        chosen[k] = best;
        w[k] = logits[best];
      }
      softmax(w, w, top_k);
    }
  });
}

void router_topk_backward(const Exec& exec, float* drouter_logits, const float* dweights, const int32_t* experts,
                          const float* weights, int64_t n, int64_t num_experts, int64_t top_k) {
  parallel_for(exec, n, row_grain, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      float* dlogits = drouter_logits + t * num_experts;
      const float* w = weights + t * top_k;
      const float* dw = dweights + t * top_k;
      std::fill(dlogits, dlogits + num_experts, 0.0f);
      float dot = 0.0f;
      for (int64_t k = 0; k < top_k; ++k) dot += w[k] * dw[k];
      for (int64_t k = 0; k < top_k; ++k) dlogits[experts[t * top_k + k]] = w[k] * (dw[k] - dot);
    }
  });
}

void moe_sort(const Exec&, int32_t* offsets, int32_t* source, const int32_t* experts, const uint8_t* valid, int64_t n,
              int64_t num_experts, int64_t top_k) {
  std::fill(offsets, offsets + num_experts + 1, 0);
  const int64_t assignments = n * top_k;
  for (int64_t a = 0; a < assignments; ++a)
    if (!valid || valid[a / top_k]) ++offsets[experts[a] + 1];
  for (int64_t e = 0; e < num_experts; ++e) offsets[e + 1] += offsets[e];
  std::vector<int32_t> next(offsets, offsets + num_experts);
  for (int64_t a = 0; a < assignments; ++a)
    if (!valid || valid[a / top_k]) source[next[static_cast<size_t>(experts[a])]++] = static_cast<int32_t>(a);
}

void moe_gather(const Exec& exec, Ptr out, ConstPtr x, const int32_t* source, const uint32_t* kept, float keep_scale,
                int64_t m, int64_t c, int64_t top_k) {
  dispatch(x.dtype, [&]<typename T>() {
    parallel_for(exec, m, row_grain, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        const int64_t token = source[r] / top_k;
        const T* const from = x.as<T>() + token * c;
        T* const to = out.as<T>() + r * c;
        if (kept == nullptr) {
          std::copy_n(from, c, to);
          continue;
        }
        const uint32_t* const bits = kept + token * kept_words(c);
        for (int64_t j = 0; j < c; ++j) to[j] = T(is_kept(bits, j) ? static_cast<float>(from[j]) * keep_scale : 0.0f);
      }
    });
  });
}

void moe_gather_backward(const Exec& exec, Ptr dx, ConstPtr dy, ConstPtr dgathered, const int32_t* inverse,
                         const uint32_t* kept, float keep_scale, int64_t n, int64_t c, int64_t top_k) {
  dispatch(dx.dtype, [&]<typename T>() {
    parallel_for(exec, n, row_grain, [&](int64_t first, int64_t last) {
      std::vector<float> sum(static_cast<size_t>(c));
      for (int64_t t = first; t < last; ++t) {
        sum_of_rows<T>(sum, dgathered, nullptr, inverse + t * top_k, c, top_k);
        const uint32_t* const bits = kept == nullptr ? nullptr : kept + t * kept_words(c);
        for (int64_t j = 0; j < c; ++j) {
          float value = sum[static_cast<size_t>(j)];
          if (bits != nullptr) value = is_kept(bits, j) ? static_cast<float>(T(value)) * keep_scale : 0.0f;
          dx.as<T>()[t * c + j] = T(static_cast<float>(dy.as<T>()[t * c + j]) + value);
        }
      }
    });
  });
}

void moe_combine_forward(const Exec& exec, Ptr y, ConstPtr expert_out, const float* weights, const int32_t* inverse,
                         int64_t n, int64_t c, int64_t top_k, float scale) {
  dispatch(y.dtype, [&]<typename T>() {
    parallel_for(exec, n, row_grain, [&](int64_t first, int64_t last) {
      std::vector<float> sum(static_cast<size_t>(c));
      for (int64_t t = first; t < last; ++t) {
        sum_of_rows<T>(sum, expert_out, weights == nullptr ? nullptr : weights + t * top_k, inverse + t * top_k, c,
                       top_k);
        T* to = y.as<T>() + t * c;
        for (int64_t j = 0; j < c; ++j) to[j] = T(static_cast<float>(to[j]) + scale * sum[static_cast<size_t>(j)]);
      }
    });
  });
}

void moe_combine_residual(const Exec& exec, Ptr y, ConstPtr stream, ConstPtr branch, ConstPtr expert_out,
                          const float* weights, const int32_t* inverse, int64_t n, int64_t c, int64_t top_k,
                          float scale) {
  dispatch(y.dtype, [&]<typename T>() {
    parallel_for(exec, n, row_grain, [&](int64_t first, int64_t last) {
      std::vector<float> sum(static_cast<size_t>(c));
      for (int64_t t = first; t < last; ++t) {
        sum_of_rows<T>(sum, expert_out, weights + t * top_k, inverse + t * top_k, c, top_k);
        for (int64_t j = 0; j < c; ++j) {
          const int64_t at = t * c + j;
          const T both = T(static_cast<float>(stream.as<T>()[at]) + static_cast<float>(branch.as<T>()[at]));
          y.as<T>()[at] = T(static_cast<float>(both) + scale * sum[static_cast<size_t>(j)]);
        }
      }
    });
  });
}

void moe_combine_backward(const Exec& exec, Ptr dexpert_out, float* dweights, ConstPtr dy, ConstPtr expert_out,
                          const float* weights, const int32_t* source, const int32_t* inverse, int64_t n, int64_t m,
                          int64_t c, int64_t top_k, float scale) {
  dispatch(dy.dtype, [&]<typename T>() {
    parallel_for(exec, m, row_grain, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        const float w = scale * weights[source[r]];
        const T* from = dy.as<T>() + source[r] / top_k * c;
        T* to = dexpert_out.as<T>() + r * c;
        for (int64_t j = 0; j < c; ++j) to[j] = T(w * static_cast<float>(from[j]));
      }
    });
    parallel_for(exec, n * top_k, row_grain, [&](int64_t first, int64_t last) {
      for (int64_t a = first; a < last; ++a) {
        float dot = 0.0f;
        if (inverse[a] >= 0) {
          const T* gradient = dy.as<T>() + a / top_k * c;
          const T* out = expert_out.as<T>() + inverse[a] * c;
          // Eight interleaved sums: a fixed order that the compiler can keep in one vector.
          float partial[8] = {};
          int64_t j = 0;
          for (; j + 8 <= c; j += 8)
            for (int lane = 0; lane < 8; ++lane)
              partial[lane] += static_cast<float>(gradient[j + lane]) * static_cast<float>(out[j + lane]);
          for (; j < c; ++j) partial[0] += static_cast<float>(gradient[j]) * static_cast<float>(out[j]);
          for (const float p : partial) dot += p;
        }
        dweights[a] = scale * dot;
      }
    });
  });
}

void moe_invert(const Exec&, int32_t* inverse, const int32_t* source, int64_t m, int64_t n, int64_t top_k) {
  std::fill(inverse, inverse + n * top_k, -1);
  for (int64_t r = 0; r < m; ++r) inverse[source[r]] = static_cast<int32_t>(r);
}

void balance_loss_forward(const Exec& exec, float* loss, int64_t* tokens_per_expert, float* mean_probability,
                          const float* router_logits, const int32_t* experts, const uint8_t* valid, int64_t n,
                          int64_t num_experts, int64_t top_k) {
  const auto width = static_cast<size_t>(num_experts);
  std::fill(tokens_per_expert, tokens_per_expert + num_experts, int64_t{0});
  for (int64_t a = 0; a < n * top_k; ++a)
    if (!valid || valid[a / top_k]) ++tokens_per_expert[experts[a]];
  const int64_t blocks = (n + sum_block - 1) / sum_block;
  std::vector<float> partial(static_cast<size_t>(blocks) * width, 0.0f);
  parallel_for(exec, blocks, 1, [&](int64_t first, int64_t last) {
    std::vector<float> probability(width);
    for (int64_t block = first; block < last; ++block) {
      float* sum = partial.data() + static_cast<size_t>(block) * width;
      for (int64_t t = block * sum_block; t < std::min(n, (block + 1) * sum_block); ++t) {
        if (valid && !valid[t]) continue;
        softmax(probability.data(), router_logits + t * num_experts, num_experts);
        for (size_t e = 0; e < width; ++e) sum[e] += probability[e];
      }
    }
  });
  const int64_t tokens = count_valid(valid, n);
  *loss = 0.0f;
  for (size_t e = 0; e < width; ++e) {
    float sum = 0.0f;
    for (int64_t block = 0; block < blocks; ++block) sum += partial[static_cast<size_t>(block) * width + e];
    mean_probability[e] = tokens == 0 ? 0.0f : sum / static_cast<float>(tokens);
    if (tokens == 0) continue;
    const float share = static_cast<float>(tokens_per_expert[e]) / static_cast<float>(tokens * top_k);
    *loss += static_cast<float>(num_experts) * share * mean_probability[e];
  }
}

void balance_loss_backward(const Exec& exec, float* drouter_logits, float coefficient, const float* router_logits,
                           const int64_t* tokens_per_expert, const uint8_t* valid, int64_t n, int64_t num_experts,
                           int64_t top_k) {
  const int64_t tokens = count_valid(valid, n);
  if (tokens == 0) return;
  // loss = E * sum_i F_i * mean_t p_ti: its gradient in logit j of token t is E / T * p_tj * (F_j - sum_i F_i p_ti).
  std::vector<float> share(static_cast<size_t>(num_experts));
  for (size_t e = 0; e < share.size(); ++e)
    share[e] = static_cast<float>(tokens_per_expert[e]) / static_cast<float>(tokens * top_k);
  const float scale = coefficient * static_cast<float>(num_experts) / static_cast<float>(tokens);
  parallel_for(exec, n, row_grain, [&](int64_t first, int64_t last) {
    std::vector<float> probability(share.size());
    for (int64_t t = first; t < last; ++t) {
      if (valid && !valid[t]) continue;
      softmax(probability.data(), router_logits + t * num_experts, num_experts);
      float mean = 0.0f;
      for (size_t e = 0; e < share.size(); ++e) mean += share[e] * probability[e];
      float* dlogits = drouter_logits + t * num_experts;
      for (size_t e = 0; e < share.size(); ++e) dlogits[e] += scale * probability[e] * (share[e] - mean);
    }
  });
}

}  // namespace caravan::cpu
