// Token embedding, and softmax cross entropy fused with its gradient over a chunk of logits.
#pragma once

#include "kernels/exec.h"

namespace caravan {

/// out (N, C) = table (V, C)[ids]. Ids are checked by the caller.
void embedding_forward(const Exec& exec, Ptr out, ConstPtr table, const int32_t* ids, int64_t n, int64_t c);
/// dtable (V, C) f32 += dout rows, in row order for each id (deterministic).
void embedding_backward(const Exec& exec, Ptr dtable, ConstPtr dout, const int32_t* ids, int64_t n, int64_t c,
                        int64_t v);

/// out (M, C)[r] = x[rows[r]], and x[rows[r]] += in (M, C)[r]; rows are distinct.
void gather_rows(const Exec& exec, Ptr out, ConstPtr x, const int32_t* rows, int64_t m, int64_t c);
void scatter_rows_add(const Exec& exec, Ptr x, ConstPtr in, const int32_t* rows, int64_t m, int64_t c);

/// logits (M, V) f32: losses (M) = logsumexp - logit[target]; with `gradient`, logits are overwritten by
/// gradient_scale * (softmax - onehot). A negative target gives loss 0 and a zero gradient.
void cross_entropy(const Exec& exec, float* losses, float* logits, const int32_t* targets, int64_t m, int64_t v,
                   bool gradient, float gradient_scale);

}  // namespace caravan
