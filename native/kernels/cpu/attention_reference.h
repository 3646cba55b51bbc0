// Attention as its definition says, one query at a time in fp64: what the blocked one is held against.
#pragma once

#include "kernels/attention.h"

namespace caravan::cpu::reference {

void attention_forward(Ptr out, float* lse, ConstPtr q, ConstPtr k, ConstPtr v, const int32_t* cu_seqlens,
                       int64_t sequences, int64_t n, const AttentionShape& shape);
void attention_backward(Ptr dq, Ptr dk, Ptr dv, ConstPtr dout, ConstPtr q, ConstPtr k, ConstPtr v,
                        const int32_t* cu_seqlens, int64_t sequences, int64_t n, const AttentionShape& shape);
void attention_decode(Ptr out, ConstPtr q, ConstPtr k_cache, ConstPtr v_cache, int64_t past, int64_t n,
                      const AttentionShape& shape);

}  // namespace caravan::cpu::reference
