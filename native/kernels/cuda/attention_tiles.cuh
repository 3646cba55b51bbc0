// How the kernels of attention cut their work. The host does not know the lengths of the sequences, so one small kernel
// lays out a table of tiles, those with most work first, and a block takes the tile of its index.
#pragma once

#include <algorithm>

#include "kernels/attention.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"

namespace caravan::cuda {

/// A tile of rows of one sequence. Query i of the sequence has position past + i and sees keys up to it.
struct AttentionTile {
  int32_t first;  // row of the sequence's first token in q and k
  int32_t keys;   // 0: the slot is empty
  int32_t index;  // which tile of the sequence
  int32_t past;   // keys - queries

  __device__ int queries() const { return keys - past; }
};

/// Of tiles of `rows` queries the last sees most keys; of tiles of keys the first is seen by most queries.
enum class TileOrder : uint8_t { last_first, first_first };

/// Slots that hold the tiles of any cut of n rows into `sequences`.
inline int64_t tile_slots(int64_t n, int64_t sequences, int64_t rows) { return n / rows + sequences; }

/// Fills `slots` = tile_slots(n, sequences, rows) tiles. `cu_seqlens` null: one sequence of n queries after `past` keys.
/// `counter`, where blocks take their tiles one after another, is set to 0.
void attention_tiles(const Exec& exec, AttentionTile* tiles, const int32_t* cu_seqlens, int64_t sequences, int64_t n,
                     int64_t past, int64_t rows, TileOrder order, int* counter = nullptr);

/// @throws EngineError unsupported_architecture for heads that no kernel here holds
void require_attention_head_dim(const AttentionShape& shape);

/// What every kernel needs of the shape, in the kernel's own units.
struct AttentionParams {
  int heads, kv_heads, group;
  int head_dim;
  int window;        // 0: none
  float scale;       // of the scores
  float scale_log2;  // the same for exp2
  int64_t n;         // rows of lse and delta: (heads, n)
  int section;       // key heads whose keys and values fit into the L2 together
};

/// `rows`: of k and v.
inline AttentionParams attention_params(const AttentionShape& shape, int64_t n, int64_t rows) {
  constexpr int64_t cached_bytes = 24 << 20;
  const int64_t head_bytes = std::max<int64_t>(1, 4 * rows * shape.head_dim);
  return {static_cast<int>(shape.heads),
          static_cast<int>(shape.kv_heads),
          static_cast<int>(shape.heads / shape.kv_heads),
          static_cast<int>(shape.head_dim),
          static_cast<int>(shape.window),
          shape.scale,
          shape.scale * 1.4426950408889634f,
          n,
          static_cast<int>(std::clamp<int64_t>(cached_bytes / head_bytes, 1, shape.kv_heads))};
}

/// Which tile and which head a block takes. Blocks that run together share keys and values through the L2: so a section
/// of the heads goes first, over all tiles, then the next.
struct WorkItem {
  int slot, head;
};

/// `heads`: query heads (per_key_head = group) or key heads (1).
__device__ __forceinline__ WorkItem work_item(const AttentionParams& p, int item, int slots, int heads,
                                              int per_key_head) {
  const int width = p.section * per_key_head, section = item / (slots * width), rest = item - section * slots * width;
  const int present = min(width, heads - section * width);
  return {rest / present, section * width + rest % present};
}

/// Whether the query at `position` sees `key`, both counted from the start of their sequence.
__device__ __forceinline__ bool sees(const AttentionParams& p, int position, int key) {
  return key <= position && (p.window == 0 || key > position - p.window);
}

/// First key that any query from `position` on sees.
__device__ __forceinline__ int first_key(const AttentionParams& p, int position) {
  return p.window > 0 ? max(0, position - p.window + 1) : 0;
}

/// One past the last query of the sequence that sees any of the keys up to `last_key` (packed sequences: past = 0).
__device__ __forceinline__ int query_end(const AttentionParams& p, int last_key, int queries) {
  return p.window > 0 ? min(queries, last_key + p.window) : queries;
}

constexpr float log2_e = 1.4426950408889634f;
constexpr float ln_2 = 0.6931471805599453f;

/// A kernel that needs more shared memory than a block gets unasked.
template <typename Kernel>
void allow_shared_memory(Kernel kernel, size_t bytes, const char* operation) {
  if (bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
          operation);
  }
}

// Forward over tiles; `past` != 0 or cu_seqlens null: a prompt against a cache. Each returns what it launched or throws.
void attention_forward_simt(const Exec& exec, Ptr out, float* lse, ConstPtr q, ConstPtr k, ConstPtr v,
                            const int32_t* cu_seqlens, int64_t sequences, int64_t n, int64_t past,
                            const AttentionShape& shape);
void attention_forward_mma(const Exec& exec, bf16* out, float* lse, const bf16* q, const bf16* k, const bf16* v,
                           const int32_t* cu_seqlens, int64_t sequences, int64_t n, int64_t past,
                           const AttentionShape& shape);

/// What the backward kernels share: delta (heads, n) = sum over channels of dout * out.
void attention_delta(const Exec& exec, float* delta, ConstPtr dout, ConstPtr out, int64_t n,
                     const AttentionShape& shape);
void attention_backward_simt(const Exec& exec, Ptr dq, Ptr dk, Ptr dv, ConstPtr dout, ConstPtr q, ConstPtr k,
                             ConstPtr v, ConstPtr out, const float* lse, const int32_t* cu_seqlens, int64_t sequences,
                             int64_t n, const AttentionShape& shape);
void attention_backward_mma(const Exec& exec, bf16* dq, bf16* dk, bf16* dv, const bf16* dout, const bf16* q,
                            const bf16* k, const bf16* v, const bf16* out, const float* lse, const int32_t* cu_seqlens,
                            int64_t sequences, int64_t n, const AttentionShape& shape);

/// Few queries against a long cache: splits of the cache apart, then their partial softmaxes joined in order.
void attention_decode_split(const Exec& exec, Ptr out, ConstPtr q, ConstPtr k_cache, ConstPtr v_cache, int64_t past,
                            int64_t n, const AttentionShape& shape);

}  // namespace caravan::cuda
