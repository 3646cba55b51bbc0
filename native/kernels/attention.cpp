#include "kernels/attention.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(attention_forward)
CARAVAN_TWINS(attention_backward)
CARAVAN_TWINS(attention_decode)

void attention_forward(const Exec& exec, Ptr out, float* lse, ConstPtr q, ConstPtr k, ConstPtr v,
                       const int32_t* cu_seqlens, int64_t sequences, int64_t n, const AttentionShape& shape) {
  CARAVAN_DISPATCH(attention_forward, exec, out, lse, q, k, v, cu_seqlens, sequences, n, shape);
}

void attention_backward(const Exec& exec, Ptr dq, Ptr dk, Ptr dv, ConstPtr dout, ConstPtr q, ConstPtr k, ConstPtr v,
                        ConstPtr out, const float* lse, const int32_t* cu_seqlens, int64_t sequences, int64_t n,
                        const AttentionShape& shape) {
  CARAVAN_DISPATCH(attention_backward, exec, dq, dk, dv, dout, q, k, v, out, lse, cu_seqlens, sequences, n, shape);
}

void attention_decode(const Exec& exec, Ptr out, ConstPtr q, ConstPtr k_cache, ConstPtr v_cache, int64_t past,
                      int64_t n, const AttentionShape& shape) {
  CARAVAN_DISPATCH(attention_decode, exec, out, q, k_cache, v_cache, past, n, shape);
}

}  // namespace caravan
