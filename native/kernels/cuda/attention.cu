// Which kernel does what: bf16 whose rows are whole 16-byte pieces goes to the tensor cores, all else to plain kernels.
#include "kernels/attention.h"

#include <string>

#include "kernels/cuda/attention_sm90.cuh"

namespace caravan::cuda {

namespace {

constexpr int64_t largest_head_dim = 256;
// Up to here one pass over the cache serves a few queries at once; beyond it the tensor cores are the better way.
constexpr int64_t decode_max_queries = 16;

bool for_tensor_cores(const AttentionShape& shape, std::initializer_list<ConstPtr> arrays) {
  if (shape.head_dim % 8 != 0) return false;
  for (const ConstPtr& array : arrays) {
    if (array.dtype != DType::bf16 || reinterpret_cast<uintptr_t>(array.data) % 16 != 0) return false;
  }
  return true;
}

void forward_on_tensor_cores(const Exec& exec, Ptr out, float* lse, ConstPtr q, ConstPtr k, ConstPtr v,
                             const int32_t* cu_seqlens, int64_t sequences, int64_t n, int64_t past,
                             const AttentionShape& shape) {
  const auto forward = attention_for_sm90(exec, shape.head_dim) ? attention_forward_sm90 : attention_forward_mma;
  forward(exec, out.as<bf16>(), lse, q.as<bf16>(), k.as<bf16>(), v.as<bf16>(), cu_seqlens, sequences, n, past, shape);
}

/// Table of tiles: a warp counts, for one tile, the tiles that go before it.
__global__ void tiles_kernel(AttentionTile* tiles, const int32_t* cu_seqlens, int sequences, int slots, int n, int past,
                             int rows, bool last_first, int* counter) {
  const int sequence = blockIdx.x, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const auto tiles_of = [&](int s) {
    return ((cu_seqlens != nullptr ? cu_seqlens[s + 1] - cu_seqlens[s] : n) + rows - 1) / rows;
  };
  const int first = cu_seqlens != nullptr ? cu_seqlens[sequence] : 0;
  const int queries = cu_seqlens != nullptr ? cu_seqlens[sequence + 1] - first : n;
  const int count = tiles_of(sequence);
  for (int level = threadIdx.x / 32; level < count; level += warps) {
    int before = 0;
    for (int s = lane; s < sequences; s += 32) {
      before += max(0, tiles_of(s) - 1 - level) + (s < sequence && tiles_of(s) > level);
    }
    before = __reduce_add_sync(0xffffffffu, before);
    if (lane == 0) tiles[before] = {first, past + queries, last_first ? level : count - 1 - level, past};
  }
  if (sequence > 0 || threadIdx.x >= 32) return;
  if (counter != nullptr && lane == 0) *counter = 0;
  int total = 0;
  for (int s = lane; s < sequences; s += 32) total += tiles_of(s);
  total = __reduce_add_sync(0xffffffffu, total);
  for (int i = total + lane; i < slots; i += 32) tiles[i] = {0, 0, 0, 0};
}

}  // namespace

void require_attention_head_dim(const AttentionShape& shape) {
  if (shape.head_dim <= largest_head_dim) return;
  throw EngineError("unsupported_architecture", "head_dim " + std::to_string(shape.head_dim) +
                                                    ": attention on the GPU holds up to " +
                                                    std::to_string(largest_head_dim) + "; run this model on the CPU");
}

void attention_tiles(const Exec& exec, AttentionTile* tiles, const int32_t* cu_seqlens, int64_t sequences, int64_t n,
                     int64_t past, int64_t rows, TileOrder order, int* counter) {
  tiles_kernel<<<static_cast<unsigned>(sequences), 256, 0, stream_of(exec)>>>(
      tiles, cu_seqlens, static_cast<int>(sequences), static_cast<int>(tile_slots(n, sequences, rows)),
      static_cast<int>(n), static_cast<int>(past), static_cast<int>(rows), order == TileOrder::last_first, counter);
  check_launch("attention's table of tiles");
}

void attention_forward(const Exec& exec, Ptr out, float* lse, ConstPtr q, ConstPtr k, ConstPtr v,
                       const int32_t* cu_seqlens, int64_t sequences, int64_t n, const AttentionShape& shape) {
  if (n == 0) return;
  require_attention_head_dim(shape);
  if (!for_tensor_cores(shape, {out, q, k, v})) {
    return attention_forward_simt(exec, out, lse, q, k, v, cu_seqlens, sequences, n, 0, shape);
  }
  forward_on_tensor_cores(exec, out, lse, q, k, v, cu_seqlens, sequences, n, 0, shape);
}

void attention_backward(const Exec& exec, Ptr dq, Ptr dk, Ptr dv, ConstPtr dout, ConstPtr q, ConstPtr k, ConstPtr v,
                        ConstPtr out, const float* lse, const int32_t* cu_seqlens, int64_t sequences, int64_t n,
                        const AttentionShape& shape) {
  if (n == 0) return;
  require_attention_head_dim(shape);
  if (!for_tensor_cores(shape, {dq, dk, dv, dout, q, k, v, out})) {
    return attention_backward_simt(exec, dq, dk, dv, dout, q, k, v, out, lse, cu_seqlens, sequences, n, shape);
  }
  const auto backward = attention_for_sm90(exec, shape.head_dim) ? attention_backward_sm90 : attention_backward_mma;
  backward(exec, dq.as<bf16>(), dk.as<bf16>(), dv.as<bf16>(), dout.as<bf16>(), q.as<bf16>(), k.as<bf16>(), v.as<bf16>(),
           out.as<bf16>(), lse, cu_seqlens, sequences, n, shape);
}

void attention_decode(const Exec& exec, Ptr out, ConstPtr q, ConstPtr k_cache, ConstPtr v_cache, int64_t past,
                      int64_t n, const AttentionShape& shape) {
  if (n == 0) return;
  require_attention_head_dim(shape);
  if (n <= decode_max_queries) return attention_decode_split(exec, out, q, k_cache, v_cache, past, n, shape);
  if (!for_tensor_cores(shape, {out, q, k_cache, v_cache})) {
    return attention_forward_simt(exec, out, nullptr, q, k_cache, v_cache, nullptr, 1, n, past, shape);
  }
  forward_on_tensor_cores(exec, out, nullptr, q, k_cache, v_cache, nullptr, 1, n, past, shape);
}

}  // namespace caravan::cuda
