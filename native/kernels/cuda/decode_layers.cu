// One block on every multiprocessor runs all layers. Sixteen warps compute; a seventeenth copies weights into a ring of
// stages in shared memory, in the order in which this block will meet them and without regard to where the others are:
// so while the blocks wait for one another the memory goes on working. A stage is 16 rows of a weight and up to 4096 of
// its columns. A layer is seven parts with a barrier over all blocks between them:
//
//   inputs    q, k, v of rmsnorm(x)
//   attend    a warp takes one head of one conversation and 64 keys; the last to finish joins a head's pieces
//   outputs   m = x + W_o a
//   gate, up  silu(gate) * up of rmsnorm(m), and the router's logits
//   down      f = W_down(.), x = m + f
//   adapter's down and up   of the chosen experts alone; x += s * sum w_k Up_k(gelu(Down_k f))
//
// LoRA's A is part of its projection's part: its rows are shared out among the blocks first, and are done everywhere by
// the time that a block has multiplied its rows of W and needs u = A x.
#include "kernels/decode_layers.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/decode_experts.cuh"
#include "kernels/transfer.h"

namespace caravan {

namespace cuda::decode {
namespace {

#if __CUDA_ARCH__ >= 900

template <int N>
class Block : public ExpertParts<N> {
 public:
  using Base = ExpertParts<N>;
  using Base::adapters_down;
  using Base::adapters_up;
  using Base::attend;
  using Base::Base;
  using Base::choose_experts;
  using Base::g;
  using Base::index;
  using Base::multiply;
  using Base::s;
  using Base::tid;
  using Base::wait_for_all;

  __device__ void compute() {
    for (int l = 0; l < g.num_layers; ++l) {
      index = l;
      for (int i = tid; i < static_cast<int>(sizeof(LayerArgs) / 8); i += computing) {
        reinterpret_cast<uint64_t*>(s.layer)[i] = reinterpret_cast<const uint64_t*>(g.layers + l)[i];
      }
      sync_computing();
      // One copy of the code for all four: it would not fit into the instruction cache otherwise.
#pragma unroll 1
      for (int part = inputs; part <= down; ++part) {
        multiply(part);
        if (part == down) break;
        wait_for_all();
        if (part == inputs) {
          attend();
          wait_for_all();
        }
        if (part == gate_up && g.experts > 0) choose_experts();
      }
      if (g.experts > 0) {
        wait_for_all();
        adapters_down();
        wait_for_all();
        adapters_up();
      }
      if (l + 1 < g.num_layers) wait_for_all();
    }
  }
};

#endif

template <int N>
__global__ void __launch_bounds__(threads, 1) decode_layers_kernel(const __grid_constant__ Args g) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) char memory[];
  Shared s;
  char* at = memory;
  const auto take = [&](auto*& array, int bytes) {
    array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(at);
    at += (bytes + 127) / 128 * 128;
  };
  take(s.stages, g.stages * stage_bytes);
  take(s.table, table_bytes);
  take(s.x, g.n * g.x_stride * 2);
  take(s.sums, g.most_tiles * tile_rows * g.n * 4);
  take(s.partial, partial_bytes(g));
  s.u = s.partial;
  take(s.dynamic, 256 * 4);
  take(s.layer, sizeof(LayerArgs));
  take(s.rstd, most_rows * 4);
  take(s.full, g.stages * 8);
  take(s.empty, g.stages * 8);
  take(s.chosen, most_slots * 4);
  take(s.weights, most_slots * 4);
  take(s.lists, (1 + 2 * most_slots) * 4);
  for (int i = static_cast<int>(threadIdx.x); i < 256 * 32; i += threads) {
    const int byte = i / 32;
    const __half2 pair = __floats2half2_rn(g.tables[byte >> 4], g.tables[byte & 15]);
    s.table[i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
  if (threadIdx.x < 256) s.dynamic[threadIdx.x] = g.tables[16 + threadIdx.x];
  if (threadIdx.x == 0) {
    for (int i = 0; i < g.stages; ++i) {
      barrier_init(s.full + i, tile_rows);
      barrier_init(s.empty + i, warps);
    }
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
  }
  __syncthreads();
  Block<N> block(g, s);
  if (threadIdx.x >= computing) {
    block.copy_weights();
  } else {
    block.compute();
  }
#endif
}

/// Bytes of shared memory beside the stages.
size_t fixed_shared(const Args& g) {
  const auto piece = [](size_t bytes) { return (bytes + 127) / 128 * 128; };
  const auto n = static_cast<size_t>(g.n);
  return piece(table_bytes) + piece(n * static_cast<size_t>(g.x_stride) * 2) +
         piece(static_cast<size_t>(g.most_tiles) * tile_rows * n * 4) + piece(static_cast<size_t>(partial_bytes(g))) +
         piece(256 * 4) + piece(sizeof(LayerArgs)) + piece(most_rows * 4) + 2 * piece(16 * 8) +
         2 * piece(most_slots * 4) + piece((1 + 2 * most_slots) * 4);
}

/// Few rows of x leave room for the sums of all tiles; with many, two at a time.
int most_waiting(int n, int tiles) { return std::clamp(16 / n, 2, std::max(2, tiles)); }

/// The kernel for n rows.
auto kernel_for(int64_t n) {
  return n == 1 ? decode_layers_kernel<1> : n <= 4 ? decode_layers_kernel<4> : decode_layers_kernel<8>;
}

constexpr int least_stages = 2, enough_stages = 6;

bool is_aligned(const void* data) { return data != nullptr && reinterpret_cast<uintptr_t>(data) % 16 == 0; }

}  // namespace
}  // namespace cuda::decode

struct DecodeLayers::Memory {
  cuda::decode::Args args;
  void* layers = nullptr;
  void* values = nullptr;  // what the parts hand on
  size_t bytes = 0;
  size_t counter_bytes = 0;
  int grid = 0;
  size_t room = 0;  // shared memory of a block

  ~Memory() {
    cuda_free(layers);
    cuda_free(values);
  }
};

namespace {

using namespace cuda;
using namespace cuda::decode;

/// Fills `to` from a projection (rows, cols); false where it is none that the kernel can read.
bool take_projection(ProjectionArgs& to, const DecodeProjection& from, int64_t rows, int64_t cols, int64_t rank) {
  if (from.weight == nullptr || from.weight->absmax_u8 == nullptr || from.rank != rank) return false;
  const Nf4View& w = *from.weight;
  const int64_t most_int = int64_t{1} << 31;
  if (w.rows != rows || w.cols != cols || cols % 256 != 0 || rows * cols / 64 >= most_int) return false;
  if (!decode::is_aligned(w.packed) || !decode::is_aligned(w.absmax_u8)) return false;
  if (rank > 0 && (from.lora_a.dtype != DType::bf16 || from.lora_b.dtype != DType::bf16 ||
                   !decode::is_aligned(from.lora_a.data) || !decode::is_aligned(from.lora_b.data))) {
    return false;
  }
  to = {w.packed, w.absmax_u8,    w.absmax2, from.bias, from.lora_a.as<bf16>(), from.lora_b.as<bf16>(),
        w.offset, from.lora_scale};
  return true;
}

}  // namespace

DecodeLayers::DecodeLayers(std::unique_ptr<Memory> memory) : memory_(std::move(memory)) {}
DecodeLayers::~DecodeLayers() = default;
size_t DecodeLayers::bytes() const { return memory_->bytes; }

std::unique_ptr<DecodeLayers> DecodeLayers::make(const Exec& exec, const DecodeShape& shape,
                                                 const std::vector<DecodeLayer>& layers) {
  if (exec.device != Device::cuda || layers.empty() || exec.cuda->compute_capability() < 90) return nullptr;
  cudaFuncAttributes attributes = {};
  check(cudaFuncGetAttributes(&attributes, kernel_for(1)), "decode_layers");
  if (attributes.ptxVersion < 90) return nullptr;  // compiled for an older architecture: its body is empty
  int cooperative = 0;
  check(cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, exec.cuda->device()), "decode_layers");
  const int64_t c = shape.hidden, f = shape.intermediate, q = shape.heads * shape.head_dim;
  const int64_t kv = shape.kv_heads * shape.head_dim, rank = layers[0].projections[0].rank;
  if (cooperative == 0 || (shape.head_dim != 64 && shape.head_dim != 128) || f % 16 != 0 || rank % 8 != 0) {
    return nullptr;
  }
  if (shape.num_experts > 0 &&
      (shape.top_k * most_rows > most_slots || shape.top_k > shape.num_experts || shape.num_experts > 256 ||
       shape.adapter_dim % 8 != 0 || shape.top_k * shape.adapter_dim > c)) {
    return nullptr;
  }
  auto memory = std::make_unique<Memory>();
  Args& g = memory->args;
  g = {};
  std::vector<LayerArgs> host(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    const DecodeLayer& from = layers[i];
    LayerArgs& to = host[i];
    const int64_t rows[7] = {q, kv, kv, c, f, f, c}, cols[7] = {c, c, c, q, c, c, f};
    for (int p = 0; p < 7; ++p) {
      if (!take_projection(to.projections[p], from.projections[p], rows[p], cols[p], rank)) return nullptr;
    }
    if (from.input_norm.dtype != DType::f32 || from.post_norm.dtype != DType::f32) return nullptr;
    if (!decode::is_aligned(from.input_norm.data) || !decode::is_aligned(from.post_norm.data)) return nullptr;
    to.input_norm = from.input_norm.as<float>();
    to.post_norm = from.post_norm.as<float>();
    to.window = static_cast<int>(from.window);
    to.rotates = from.rotates ? 1 : 0;
    if (shape.num_experts == 0) continue;
    if (!decode::is_aligned(from.router.data) || !decode::is_aligned(from.adapter_down.data) ||
        !decode::is_aligned(from.adapter_up.data) || from.adapter_down.dtype != DType::bf16 ||
        from.adapter_up.dtype != DType::bf16) {
      return nullptr;
    }
    to.router = from.router.data;
    to.router_is_bf16 = from.router.dtype == DType::bf16 ? 1 : 0;
    to.adapter_down = from.adapter_down.as<bf16>();
    to.adapter_up = from.adapter_up.as<bf16>();
  }
  memory->grid = exec.cuda->multiprocessors();
  memory->room = exec.cuda->max_shared_memory();
  const auto as_int = [](int64_t value) { return static_cast<int>(value); };
  g.num_layers = as_int(static_cast<int64_t>(layers.size()));
  g.hidden = as_int(c), g.intermediate = as_int(f), g.heads = as_int(shape.heads), g.kv_heads = as_int(shape.kv_heads);
  g.head_dim = as_int(shape.head_dim), g.experts = as_int(shape.num_experts), g.top_k = as_int(shape.top_k);
  g.adapter_dim = as_int(shape.adapter_dim), g.rank = as_int(rank);
  g.adapter_scale = shape.adapter_scale, g.eps = shape.norm_eps, g.attention_scale = shape.attention_scale;
  const int64_t most_tile_rows = std::max({q + 2 * kv, 2 * f, c});
  g.most_tiles = as_int((most_tile_rows / tile_rows + memory->grid - 1) / memory->grid);
  g.x_stride = as_int(std::max<int64_t>(chunk, c)) + x_padding;
  const int64_t side_rows = std::max(3 * rank, 2 * rank + shape.num_experts);
  if (side_rows > int64_t{most_side_rows} * memory->grid) return nullptr;
  g.n = most_rows;
  g.most_waiting = most_waiting(g.n, g.most_tiles);
  if (fixed_shared(g) + least_stages * stage_bytes > memory->room) return nullptr;
  for (const int64_t n : {1, 4, 8}) {
    check(cudaFuncSetAttribute(kernel_for(n), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(memory->room)),
          "decode_layers");
  }

  // Counters first: they are zeroed before every step.
  size_t bytes = 0;
  const auto place = [&](int64_t count, size_t size) {
    const size_t at = bytes;
    bytes += (static_cast<size_t>(count) * size + 255) / 256 * 256;
    return at;
  };
  const size_t barrier = place(1, 4), side_done = place(parts * g.num_layers, 4);
  const size_t head_done = place(most_rows * shape.heads, 4);
  memory->counter_bytes = bytes;
  const size_t middle = place(most_rows * c, 2), ffn = place(most_rows * c, 2),
               qkv = place(most_rows * (q + 2 * kv), 2);
  const size_t attended = place(most_rows * q, 2), activated = place(most_rows * f, 2);
  const size_t adapted = place(most_slots * std::max<int64_t>(shape.adapter_dim, 1), 2);
  const size_t u = place(most_rows * 3 * rank + 1, 4), logits = place(most_rows * shape.num_experts + 1, 4);
  memory->layers = cuda_allocate(host.size() * sizeof(LayerArgs));
  memory->values = cuda_allocate(bytes);
  memory->bytes = bytes + host.size() * sizeof(LayerArgs);
  char* const values = static_cast<char*>(memory->values);
  g.layers = static_cast<const LayerArgs*>(memory->layers);
  g.barrier = reinterpret_cast<unsigned*>(values + barrier);
  g.side_done = reinterpret_cast<unsigned*>(values + side_done);
  g.head_done = reinterpret_cast<int*>(values + head_done);
  g.middle = reinterpret_cast<bf16*>(values + middle), g.ffn = reinterpret_cast<bf16*>(values + ffn);
  g.qkv = reinterpret_cast<bf16*>(values + qkv), g.attended = reinterpret_cast<bf16*>(values + attended);
  g.activated = reinterpret_cast<bf16*>(values + activated), g.adapted = reinterpret_cast<bf16*>(values + adapted);
  g.u = reinterpret_cast<float*>(values + u), g.router_logits = reinterpret_cast<float*>(values + logits);
  g.tables = exec.cuda->nf4_tables();
  upload(exec, memory->layers, host.data(), host.size() * sizeof(LayerArgs));
  return std::unique_ptr<DecodeLayers>(new DecodeLayers(std::move(memory)));
}

void DecodeLayers::run(const Exec& exec, const DecodeStep& step) {
  if (step.n == 0) return;
  Args g = memory_->args;
  g.n = static_cast<int>(step.n);
  g.splits = static_cast<int>((step.most + split_keys - 1) / split_keys);
  g.cache_stride = static_cast<int>(step.cache_stride);
  g.x = step.stream.as<bf16>();
  g.caches = step.caches, g.positions = step.positions, g.angle_rows = step.angle_rows;
  g.cos = step.cos, g.sin = step.sin, g.chosen = step.experts, g.weights = step.expert_weights;
  g.partials = exec.cuda->workspace<float>(step.n * g.heads * g.splits * (g.head_dim + 2));
  g.most_waiting = most_waiting(g.n, g.most_tiles);
  const size_t fixed = fixed_shared(g);
  g.stages = static_cast<int>(std::min<size_t>(enough_stages, (memory_->room - fixed) / stage_bytes));
  const size_t shared = fixed + static_cast<size_t>(g.stages) * stage_bytes;
  check(cudaMemsetAsync(g.barrier, 0, memory_->counter_bytes, stream_of(exec)), "decode_layers");
  // All blocks must run at once, since they wait for one another: a cooperative launch sees to it.
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(memory_->grid));
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream_of(exec);
  config.attrs = &attribute;
  config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, kernel_for(step.n), g), "decode_layers");
  check_launch("decode_layers");
}

}  // namespace caravan
