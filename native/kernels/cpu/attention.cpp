#include "kernels/attention.h"

#include "kernels/cpu/attention_reference.h"

namespace caravan::cpu {

void attention_forward(const Exec&, Ptr out, float* lse, ConstPtr q, ConstPtr k, ConstPtr v, const int32_t* cu_seqlens,
                       int64_t sequences, int64_t n, const AttentionShape& shape) {
  reference::attention_forward(out, lse, q, k, v, cu_seqlens, sequences, n, shape);
}

void attention_backward(const Exec&, Ptr dq, Ptr dk, Ptr dv, ConstPtr dout, ConstPtr q, ConstPtr k, ConstPtr v,
                        ConstPtr, const float*, const int32_t* cu_seqlens, int64_t sequences, int64_t n,
                        const AttentionShape& shape) {
  reference::attention_backward(dq, dk, dv, dout, q, k, v, cu_seqlens, sequences, n, shape);
}

void attention_decode(const Exec&, Ptr out, ConstPtr q, ConstPtr k_cache, ConstPtr v_cache, int64_t past, int64_t n,
                      const AttentionShape& shape) {
  reference::attention_decode(out, q, k_cache, v_cache, past, n, shape);
}

}  // namespace caravan::cpu
