#include "kernels/classifier.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(embedding_forward)
CARAVAN_TWINS(embedding_backward)
CARAVAN_TWINS(gather_rows)
CARAVAN_TWINS(scatter_rows_add)
CARAVAN_TWINS(cross_entropy)

void embedding_forward(const Exec& exec, Ptr out, ConstPtr table, const int32_t* ids, int64_t n, int64_t c) {
  CARAVAN_DISPATCH(embedding_forward, exec, out, table, ids, n, c);
}

void embedding_backward(const Exec& exec, Ptr dtable, ConstPtr dout, const int32_t* ids, int64_t n, int64_t c,
                        int64_t v) {
  CARAVAN_DISPATCH(embedding_backward, exec, dtable, dout, ids, n, c, v);
}

void gather_rows(const Exec& exec, Ptr out, ConstPtr x, const int32_t* rows, int64_t m, int64_t c) {
  CARAVAN_DISPATCH(gather_rows, exec, out, x, rows, m, c);
}

void scatter_rows_add(const Exec& exec, Ptr x, ConstPtr in, const int32_t* rows, int64_t m, int64_t c) {
  CARAVAN_DISPATCH(scatter_rows_add, exec, x, in, rows, m, c);
}

void cross_entropy(const Exec& exec, float* losses, float* logits, const int32_t* targets, int64_t m, int64_t v,
                   bool gradient, float gradient_scale) {
  CARAVAN_DISPATCH(cross_entropy, exec, losses, logits, targets, m, v, gradient, gradient_scale);
}

}  // namespace caravan
