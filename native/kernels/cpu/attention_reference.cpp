#include "kernels/cpu/attention_reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/element.h"

namespace caravan::cpu::reference {
namespace {

/// Probabilities of one query over the keys [first, last] of its sequence.
struct Row {
  int64_t first = 0;
  int64_t last = 0;
  double lse = 0.0;
  std::vector<double> p;
};

double dot(ConstPtr a, int64_t a_at, ConstPtr b, int64_t b_at, int64_t count) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    sum += static_cast<double>(load_element(a, a_at + i)) * load_element(b, b_at + i);
  }
  return sum;
}

int64_t row_at(int64_t token, int64_t head, int64_t heads, int64_t head_dim) {
  return (token * heads + head) * head_dim;
}

/// `start`: first key of the sequence; `query` and `position` index q and the keys.
Row probabilities(ConstPtr q, ConstPtr k, int64_t query, int64_t position, int64_t start, int64_t head,
                  const AttentionShape& shape) {
  const int64_t d = shape.head_dim;
  const int64_t kv_head = head / (shape.heads / shape.kv_heads);
  Row row;
  row.first = shape.window > 0 ? std::max(start, position - shape.window + 1) : start;
  row.last = position;
  double largest = -INFINITY;
  for (int64_t key = row.first; key <= row.last; ++key) {
    row.p.push_back(shape.scale *
                    dot(q, row_at(query, head, shape.heads, d), k, row_at(key, kv_head, shape.kv_heads, d), d));
    largest = std::max(largest, row.p.back());
  }
  double sum = 0.0;
  for (const double s : row.p) sum += std::exp(s - largest);
  row.lse = largest + std::log(sum);
  for (double& s : row.p) s = std::exp(s - row.lse);
  return row;
}

void combine(Ptr out, int64_t out_at, const Row& row, ConstPtr v, int64_t kv_head, const AttentionShape& shape) {
  for (int64_t i = 0; i < shape.head_dim; ++i) {
    double sum = 0.0;
    for (int64_t key = row.first; key <= row.last; ++key) {
      sum += row.p[static_cast<size_t>(key - row.first)] *
             load_element(v, row_at(key, kv_head, shape.kv_heads, shape.head_dim) + i);
    }
    store_element(out, out_at + i, static_cast<float>(sum));
  }
}

}  // namespace

void attention_forward(Ptr out, float* lse, ConstPtr q, ConstPtr k, ConstPtr v, const int32_t* cu_seqlens,
                       int64_t sequences, int64_t n, const AttentionShape& shape) {
  const int64_t group = shape.heads / shape.kv_heads;
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t t = cu_seqlens[s]; t < cu_seqlens[s + 1]; ++t) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        const Row row = probabilities(q, k, t, t, cu_seqlens[s], head, shape);
        if (lse != nullptr) lse[head * n + t] = static_cast<float>(row.lse);
        combine(out, row_at(t, head, shape.heads, shape.head_dim), row, v, head / group, shape);
      }
    }
  }
}

void attention_backward(Ptr dq, Ptr dk, Ptr dv, ConstPtr dout, ConstPtr q, ConstPtr k, ConstPtr v,
                        const int32_t* cu_seqlens, int64_t sequences, int64_t n, const AttentionShape& shape) {
  const int64_t d = shape.head_dim;
  const int64_t group = shape.heads / shape.kv_heads;
  std::vector<double> dk_sum(static_cast<size_t>(n * shape.kv_heads * d));
  std::vector<double> dv_sum(dk_sum.size());
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t t = cu_seqlens[s]; t < cu_seqlens[s + 1]; ++t) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        const Row row = probabilities(q, k, t, t, cu_seqlens[s], head, shape);
        const int64_t q_at = row_at(t, head, shape.heads, d);
        std::vector<double> dp;
        double mean = 0.0;
        for (int64_t key = row.first; key <= row.last; ++key) {
          dp.push_back(dot(dout, q_at, v, row_at(key, head / group, shape.kv_heads, d), d));
          mean += row.p[dp.size() - 1] * dp.back();
        }
        std::vector<double> dq_row(static_cast<size_t>(d));
        for (size_t j = 0; j < dp.size(); ++j) {
          const double ds = shape.scale * row.p[j] * (dp[j] - mean);
          const int64_t kv_at = row_at(row.first + static_cast<int64_t>(j), head / group, shape.kv_heads, d);
          for (int64_t i = 0; i < d; ++i) {
            dq_row[static_cast<size_t>(i)] += ds * load_element(k, kv_at + i);
            dk_sum[static_cast<size_t>(kv_at + i)] += ds * load_element(q, q_at + i);
            dv_sum[static_cast<size_t>(kv_at + i)] += row.p[j] * load_element(dout, q_at + i);
          }
        }
        for (int64_t i = 0; i < d; ++i) store_element(dq, q_at + i, static_cast<float>(dq_row[static_cast<size_t>(i)]));
      }
    }
  }
  for (size_t i = 0; i < dk_sum.size(); ++i) {
    store_element(dk, static_cast<int64_t>(i), static_cast<float>(dk_sum[i]));
    store_element(dv, static_cast<int64_t>(i), static_cast<float>(dv_sum[i]));
  }
}

void attention_decode(Ptr out, ConstPtr q, ConstPtr k_cache, ConstPtr v_cache, int64_t past, int64_t n,
                      const AttentionShape& shape) {
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t head = 0; head < shape.heads; ++head) {
      const Row row = probabilities(q, k_cache, t, past + t, 0, head, shape);
      combine(out, row_at(t, head, shape.heads, shape.head_dim), row, v_cache, head / (shape.heads / shape.kv_heads),
              shape);
    }
  }
}

}  // namespace caravan::cpu::reference
