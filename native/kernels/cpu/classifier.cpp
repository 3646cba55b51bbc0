#include "kernels/classifier.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/cpu/classifier_kernels.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/element.h"

namespace caravan::cpu {

namespace portable {
extern const ClassifierKernels classifier;
}
#if defined(CARAVAN_X86_64)
namespace avx2 {
extern const ClassifierKernels classifier;
}
namespace avx512 {
extern const ClassifierKernels classifier;
}
#endif

namespace {

constexpr int64_t row_grain = 8;

const ClassifierKernels& kernels() {
#if defined(CARAVAN_X86_64)
  switch (cpu_isa()) {
    case Isa::avx512bf16:
    case Isa::avx512: return avx512::classifier;
    case Isa::avx2: return avx2::classifier;
    case Isa::portable: break;
  }
#endif
  return portable::classifier;
}

}  // namespace

void embedding_forward(const Exec& exec, Ptr out, ConstPtr table, const int32_t* ids, int64_t n, int64_t c) {
  parallel_for(exec, n, row_grain, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t)
      for (int64_t j = 0; j < c; ++j) store_element(out, t * c + j, load_element(table, ids[t] * c + j));
  });
}

void embedding_backward(const Exec& exec, Ptr dtable, ConstPtr dout, const int32_t* ids, int64_t n, int64_t c,
                        int64_t) {
  // Rows of one id are added in row order by one thread: sorted by id, a run of equal ids is one unit of work.
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return ids[a] < ids[b]; });
  std::vector<int64_t> runs;
  for (int64_t i = 0; i < n; ++i)
    if (i == 0 || ids[order[static_cast<size_t>(i)]] != ids[order[static_cast<size_t>(i - 1)]]) runs.push_back(i);
  runs.push_back(n);
  parallel_for(exec, static_cast<int64_t>(runs.size()) - 1, row_grain, [&](int64_t first, int64_t last) {
    std::vector<float> sum(static_cast<size_t>(c));
    for (int64_t run = first; run < last; ++run) {
      const int64_t begin = runs[static_cast<size_t>(run)], end = runs[static_cast<size_t>(run + 1)];
      const int64_t row = ids[order[static_cast<size_t>(begin)]] * c;
      for (int64_t j = 0; j < c; ++j) sum[static_cast<size_t>(j)] = load_element(dtable, row + j);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t from = order[static_cast<size_t>(i)] * c;
        for (int64_t j = 0; j < c; ++j) sum[static_cast<size_t>(j)] += load_element(dout, from + j);
      }
      for (int64_t j = 0; j < c; ++j) store_element(dtable, row + j, sum[static_cast<size_t>(j)]);
    }
  });
}

void gather_rows(const Exec& exec, Ptr out, ConstPtr x, const int32_t* rows, int64_t m, int64_t c) {
  dispatch(x.dtype, [&]<typename T>() {
    parallel_for(exec, m, row_grain, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) std::copy_n(x.as<T>() + rows[r] * c, c, out.as<T>() + r * c);
    });
  });
}

void scatter_rows_add(const Exec& exec, Ptr x, ConstPtr in, const int32_t* rows, int64_t m, int64_t c) {
  dispatch(x.dtype, [&]<typename T>() {
    parallel_for(exec, m, row_grain, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        T* to = x.as<T>() + rows[r] * c;
        const T* from = in.as<T>() + r * c;
        for (int64_t j = 0; j < c; ++j) to[j] = T(static_cast<float>(to[j]) + static_cast<float>(from[j]));
      }
    });
  });
}

void cross_entropy(const Exec& exec, float* losses, float* logits, const int32_t* targets, int64_t m, int64_t v,
                   bool gradient, float gradient_scale) {
  parallel_for(exec, m, 1, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      float* row = logits + r * v;
      const int32_t target = targets[r];
      if (target < 0) {
        losses[r] = 0.0f;
        if (gradient) std::fill(row, row + v, 0.0f);
        continue;
      }
      const float at_target = row[target];
      const float largest = kernels().largest(row, v);
      const double sum = kernels().exponentials(row, v, largest, gradient);
      losses[r] = static_cast<float>(std::log(sum)) + largest - at_target;
      if (!gradient) continue;
      kernels().scale(row, v, static_cast<float>(gradient_scale / sum));
      row[target] -= gradient_scale;
    }
  });
}

}  // namespace caravan::cpu
