#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/tasks.h"

namespace caravan::cpu {

namespace portable {
extern const AttentionKernels attention;
}
#if defined(CARAVAN_X86_64)
namespace avx2 {
extern const AttentionKernels attention;
}
namespace avx512 {
extern const AttentionKernels attention;
}
#endif

namespace {

AttentionSequence sequence_of(Ptr out, float* lse, ConstPtr q, ConstPtr k, ConstPtr v, int64_t first, int64_t length,
                              int64_t n, const AttentionShape& shape) {
  const int64_t q_at = first * shape.heads * shape.head_dim;
  const int64_t kv_at = first * shape.kv_heads * shape.head_dim;
  AttentionSequence s;
  s.bf16 = q.dtype == DType::bf16;
  s.q = q.at(q_at).data;
  s.k = k.at(kv_at).data;
  s.v = v.at(kv_at).data;
  s.out = out.data == nullptr ? nullptr : out.at(q_at).data;
  s.lse = lse == nullptr ? nullptr : lse + first;
  s.lse_stride = n;
  s.queries = length;
  s.keys = length;
  s.heads = shape.heads;
  s.kv_heads = shape.kv_heads;
  s.head_dim = shape.head_dim;
  s.window = shape.window;
  s.scale = shape.scale;
  return s;
}

/// A piece of the forward pass: one block of queries of one head.
struct BlockTask {
  int64_t sequence, head, block;
};

/// Packs all keys and values once for the heads and query blocks that share them, then runs the query blocks, those
/// with most keys to see first.
void forward_sequences(const Exec& exec, const std::vector<AttentionSequence>& sequences) {
  const AttentionKernels& kernels = attention_kernels();
  const int64_t d = sequences.front().head_dim;
  const int64_t floats = packed_block_floats(d);
  std::vector<int64_t> packed_at;  // first packed block of each sequence
  std::vector<BlockTask> packs, blocks;
  int64_t packed_blocks = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const AttentionSequence& s = sequences[i];
    packed_at.push_back(packed_blocks);
    for (int64_t head = 0; head < s.kv_heads; ++head) {
      for (int64_t block = 0; block < key_blocks(s.keys); ++block)
        packs.push_back({static_cast<int64_t>(i), head, block});
    }
    for (int64_t block = (s.queries + query_block - 1) / query_block; block-- > 0;) {
      for (int64_t head = 0; head < s.heads; ++head) blocks.push_back({static_cast<int64_t>(i), head, block});
    }
    packed_blocks += s.kv_heads * key_blocks(s.keys);
  }
  float* packed = scratch(Scratch::call, packed_blocks * floats);
  const auto packed_of = [&](int64_t sequence, int64_t kv_head) {
    const int64_t per_head = key_blocks(sequences[static_cast<size_t>(sequence)].keys);
    return packed + (packed_at[static_cast<size_t>(sequence)] + kv_head * per_head) * floats;
  };
  constexpr int64_t packs_per_task = 8;
  run_tasks(exec, (static_cast<int64_t>(packs.size()) + packs_per_task - 1) / packs_per_task, [&](int64_t task) {
    float* staged = scratch(Scratch::task, forward_scratch_floats(d));
    const size_t last = std::min(packs.size(), static_cast<size_t>((task + 1) * packs_per_task));
    for (size_t i = static_cast<size_t>(task * packs_per_task); i < last; ++i) {
      const BlockTask& pack = packs[i];
      kernels.pack_keys(sequences[static_cast<size_t>(pack.sequence)], pack.head, pack.block,
                        packed_of(pack.sequence, pack.head) + pack.block * floats, staged);
    }
  });
  run_tasks(exec, static_cast<int64_t>(blocks.size()), [&](int64_t i) {
    const BlockTask& task = blocks[static_cast<size_t>(i)];
    const AttentionSequence& s = sequences[static_cast<size_t>(task.sequence)];
    kernels.forward_block(s, task.head, task.block, packed_of(task.sequence, task.head / s.group()),
                          scratch(Scratch::task, forward_scratch_floats(d)));
  });
}

/// Chunks of the cache apart, then their partial softmaxes joined in the order of the chunks.
void decode_few(const Exec& exec, const AttentionSequence& s) {
  const AttentionKernels& kernels = attention_kernels();
  const int64_t first_key = s.window > 0 ? std::max<int64_t>(0, s.past - s.window + 1) : 0;
  const int64_t first_chunk = first_key / decode_chunk_keys;
  const int64_t chunks = (s.keys + decode_chunk_keys - 1) / decode_chunk_keys - first_chunk;
  const int64_t one = decode_partial_floats(s.head_dim);
  const int64_t per_task = s.queries * s.group() * one;
  float* partials = scratch(Scratch::call, s.kv_heads * chunks * per_task);
  const auto chunk_task = [&](int64_t i) {
    const int64_t first = (first_chunk + i % chunks) * decode_chunk_keys;
    kernels.decode_chunk(s, i / chunks, first, std::min(s.keys, first + decode_chunk_keys), partials + i * per_task);
  };
  // A chunk of 128 keys takes a few microseconds: a single round of them is not worth waking a thread for.
  run_tasks(chunks == 1 ? Exec{} : exec, s.kv_heads * chunks, chunk_task);
  const Ptr out(s.out, s.bf16 ? DType::bf16 : DType::f32);
  std::vector<float> sums(static_cast<size_t>(s.head_dim));
  for (int64_t pair = 0; pair < s.queries * s.heads; ++pair) {
    const int64_t head = pair % s.heads;
    const float* first =
        partials + (head / s.group() * chunks) * per_task + (pair / s.heads * s.group() + head % s.group()) * one;
    float maximum = -INFINITY;
    for (int64_t c = 0; c < chunks; ++c) maximum = std::max(maximum, first[c * per_task]);
    float total = 0.0f;
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (int64_t c = 0; c < chunks; ++c) {
      const float* partial = first + c * per_task;
      const float weight = std::exp(partial[0] - maximum);
      total += weight * partial[1];
      for (int64_t i = 0; i < s.head_dim; ++i) sums[static_cast<size_t>(i)] += weight * partial[2 + i];
    }
    for (int64_t i = 0; i < s.head_dim; ++i) {
      store_element(out, pair * s.head_dim + i, sums[static_cast<size_t>(i)] / total);
    }
  }
}

}  // namespace

const AttentionKernels& attention_kernels() {
#if defined(CARAVAN_X86_64)
  switch (cpu_isa()) {
    case Isa::avx512bf16:
    case Isa::avx512: return avx512::attention;
    case Isa::avx2: return avx2::attention;
    case Isa::portable: break;
  }
#endif
  return portable::attention;
}

void attention_forward(const Exec& exec, Ptr out, float* lse, ConstPtr q, ConstPtr k, ConstPtr v,
                       const int32_t* cu_seqlens, int64_t sequences, int64_t n, const AttentionShape& shape) {
  std::vector<AttentionSequence> list;
  for (int64_t i = 0; i < sequences; ++i) {
    const int64_t length = cu_seqlens[i + 1] - cu_seqlens[i];
    if (length > 0) list.push_back(sequence_of(out, lse, q, k, v, cu_seqlens[i], length, n, shape));
  }
  if (!list.empty()) forward_sequences(exec, list);
}

void attention_backward(const Exec& exec, Ptr dq, Ptr dk, Ptr dv, ConstPtr dout, ConstPtr q, ConstPtr k, ConstPtr v,
                        ConstPtr out, const float* lse, const int32_t* cu_seqlens, int64_t sequences, int64_t n,
                        const AttentionShape& shape) {
  const int64_t d = shape.head_dim;
  const int64_t per_token = shape.heads * d;
  // Gradients of keys and values by query head, added up over a group below.
  float* dk_heads = scratch(Scratch::call, 2 * n * per_token);
  float* dv_heads = dk_heads + n * per_token;
  std::vector<int64_t> order(static_cast<size_t>(sequences));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return cu_seqlens[a + 1] - cu_seqlens[a] > cu_seqlens[b + 1] - cu_seqlens[b];
  });
  run_tasks(exec, sequences * shape.heads, [&](int64_t i) {
    const int64_t sequence = order[static_cast<size_t>(i / shape.heads)];
    const int64_t first = cu_seqlens[sequence];
    const int64_t length = cu_seqlens[sequence + 1] - first;
    if (length == 0) return;
    const AttentionSequence s = sequence_of({}, nullptr, q, k, v, first, length, n, shape);
    AttentionGradients g;
    g.dout = dout.at(first * per_token).data;
    g.out = out.at(first * per_token).data;
    g.lse = lse + first;
    g.dq = dq.at(first * per_token).data;
    g.dk = dk_heads + first * per_token;
    g.dv = dv_heads + first * per_token;
    attention_kernels().backward_head(s, g, i % shape.heads,
                                      scratch(Scratch::task, backward_scratch_floats(length, d)));
  });
  const int64_t group = shape.heads / shape.kv_heads;
  parallel_for(exec, n * shape.kv_heads, 64, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      for (int64_t i = 0; i < d; ++i) {
        float k_sum = 0.0f, v_sum = 0.0f;
        for (int64_t head = 0; head < group; ++head) {
          const int64_t at = (row * group + head) * d + i;
          k_sum += dk_heads[at];
          v_sum += dv_heads[at];
        }
        store_element(dk, row * d + i, k_sum);
        store_element(dv, row * d + i, v_sum);
      }
    }
  });
}

void attention_decode(const Exec& exec, Ptr out, ConstPtr q, ConstPtr k_cache, ConstPtr v_cache, int64_t past,
                      int64_t n, const AttentionShape& shape) {
  if (n == 0) return;
  AttentionSequence s = sequence_of(out, nullptr, q, k_cache, v_cache, 0, n, n, shape);
  s.keys = past + n;
  s.past = past;
  if (n <= decode_max_queries) {
    decode_few(exec, s);
  } else {
    forward_sequences(exec, {s});
  }
}

}  // namespace caravan::cpu
