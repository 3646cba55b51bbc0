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

#include <cuda_fp16.h>

#include <algorithm>
#include <string>

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/tensor_cores.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/transfer.h"

namespace caravan {

namespace cuda {
namespace {

constexpr int warps = 16, computing = 32 * warps, threads = computing + 32;
constexpr int most_rows = 8;
constexpr int chunk = 4096, chunk_blocks = chunk / 64;  // columns of a stage
constexpr int tile_rows = 16;
constexpr int row_bytes = chunk / 2 + 32;                        // of a stage; rows then begin in other banks
constexpr int code_bytes = chunk_blocks + 16, scale_bytes = 32;  // of a row of a stage
constexpr int codes_at = tile_rows * row_bytes, scales_at = codes_at + tile_rows * code_bytes;
constexpr int stage_bytes = (scales_at + tile_rows * scale_bytes + 127) / 128 * 128;
constexpr int x_padding = 8;  // elements between rows of x
constexpr int table_bytes = 256 * 32 * 4;
constexpr int most_side_rows = 4;  // rows of LoRA's A and of the router that one block takes in one part
constexpr int most_slots = 64;     // tokens times experts of each
constexpr int split_keys = 64;
// x is multiplied as fp16, which ends at 65,504: a sixteenth of it reaches a million, and what is small stays exact enough
// (below 1e-3 it is off by less than 5e-7).
constexpr float x_scale = 0.0625f, x_unscale = 16.0f;
constexpr long long patience = 4'000'000'000;  // clocks that a block waits for the others before it gives up

struct ProjectionArgs {
  const uint8_t* packed;
  const uint8_t* codes;
  const float* scales;
  const float* bias;
  const bf16* lora_a;
  const bf16* lora_b;
  float offset;
  float lora_scale;
};

struct LayerArgs {
  const float* input_norm;
  const float* post_norm;
  ProjectionArgs projections[7];
  const void* router;
  const bf16* adapter_down;
  const bf16* adapter_up;
  int router_is_bf16;
  int window;
  int rotates;
  int unused;
};

/// The four parts that multiply a weight.
enum Part { inputs = 0, outputs, gate_up, down, parts };

struct Args {
  const LayerArgs* layers;
  int num_layers, n;
  int hidden, intermediate, heads, kv_heads, head_dim;
  int experts, top_k, adapter_dim, rank;
  float adapter_scale, eps, attention_scale;
  int splits;  // of the longest conversation, at most
  int cache_stride;
  int stages, most_tiles;
  int most_waiting;  // tiles whose sums may lie warp by warp before they are added up
  int x_stride;      // elements
  bf16 *x, *middle, *ffn, *qkv, *attended, *activated, *adapted;
  float *u, *router_logits, *partials;
  unsigned *barrier, *side_done;
  int* head_done;
  const CacheView* caches;
  const int32_t *positions, *angle_rows;
  const float *cos, *sin;
  int32_t* chosen;
  float* weights;
  const float* tables;
};

/// Sums of the warps; and when all are added up, u.
__host__ __device__ inline int partial_bytes(const Args& g) {
  const int sums = g.most_waiting * warps * tile_rows * g.n * 4, u = g.n * 3 * g.rank * 4;
  return sums > u ? sums : u;
}

#if __CUDA_ARCH__ >= 900

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint64_t* barrier, int phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(phase)
      : "memory");
}
__device__ __forceinline__ void copy_bulk(void* to, const void* from, int bytes, uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}
__device__ __forceinline__ void prefetch(const void* from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }

__device__ __forceinline__ void sync_computing() { asm volatile("bar.sync 1, %0;\n" ::"n"(computing) : "memory"); }

__device__ __forceinline__ void multiply_add_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// What other blocks wrote: past the L1, which does not hear of it.
__device__ __forceinline__ uint4 load_shared_result(const bf16* from) {
  return __ldcg(reinterpret_cast<const uint4*>(from));
}
__device__ __forceinline__ float load_shared_result_one(const bf16* from) {
  return __uint_as_float(static_cast<uint32_t>(__ldcg(reinterpret_cast<const unsigned short*>(from))) << 16);
}
__device__ __forceinline__ float in_bf16(float value) { return static_cast<float>(rounded<bf16>(value)); }
__device__ __forceinline__ float half_of(uint32_t pair, int i) { return i == 0 ? low_half(pair) : high_half(pair); }

__device__ __forceinline__ uint32_t as_halves(float a, float b) {
  const auto clamped = [](float v) { return fminf(fmaxf(v * x_scale, -65504.0f), 65504.0f); };
  const __half2 pair = __floats2half2_rn(clamped(a), clamped(b));
  return *reinterpret_cast<const uint32_t*>(&pair);
}
/// Eight bf16 of W times eight fp16 of x.
__device__ __forceinline__ float dot_8(const uint4& w, const uint4& x, float sum) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t pair = (&w.x)[i], other = (&x.x)[i];
    const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&other));
    sum = fmaf(low_half(pair), v.x, sum);
    sum = fmaf(high_half(pair), v.y, sum);
  }
  return sum;
}

struct Shared {
  char* stages;
  uint32_t* table;  // (256, 32) pairs of codes in fp16, a copy for each bank
  __half* x;        // (n, x_stride)
  float* sums;      // (tiles, 16, n)
  float* partial;   // (most_waiting, warps, 16, n)
  float* u;         // (n, 3 * rank), where partial was
  float* dynamic;   // (256)
  LayerArgs* layer;
  float* rstd;  // (8)
  uint64_t *full, *empty;
  int* chosen;     // (slots)
  float* weights;  // (slots)
  int* lists;      // distinct experts: count, (slots) experts, (slots) masks of their tokens
};

class Block {
 public:
  __device__ Block(const Args& args, const Shared& shared) : g(args), s(shared) {
    tid = static_cast<int>(threadIdx.x), warp = tid / 32, lane = tid % 32;
    block = static_cast<int>(blockIdx.x), grid = static_cast<int>(gridDim.x);
    q_size = g.heads * g.head_dim, kv_size = g.kv_heads * g.head_dim;
  }

  __device__ void copy_weights() {
    int stage = 0, phase = 0;
    for (int l = 0; l < g.num_layers; ++l) {
      for (int part = 0; part < parts; ++part) {
        const int cols = cols_of(part), row_blocks = cols / 64, tiles = tiles_of(part);
        for (int first = 0; first < row_blocks; first += chunk_blocks) {
          const int blocks = min(chunk_blocks, row_blocks - first);
          for (int tile = block; tile < tiles; tile += grid) {
            if (lane < tile_rows) copy_row(l, part, tile, first, blocks, row_blocks, stage, phase);
            if (++stage == g.stages) stage = 0, phase ^= 1;
          }
        }
      }
    }
  }

  /// A lane brings a row of a stage, with the codes and scales of its blocks: what begins between two pieces of 16 bytes
  /// is copied from the piece's begin on.
  __device__ void copy_row(int l, int part, int tile, int first, int blocks, int row_blocks, int to_stage,
                           int to_phase) {
    const Place place = place_of(part, tile, lane);
    const ProjectionArgs& p = g.layers[l].projections[place.projection];
    const int at = place.row * row_blocks + first, group = at / 256;
    const int code = at & ~15, code_size = (at - code + blocks + 15) & ~15;
    const int scale = group & ~3, scale_size = group % 4 == 3 ? 32 : 16;
    const uint8_t* const packed = p.packed + static_cast<int64_t>(at) * 32;
    const uint8_t* const codes = p.codes + code;
    const float* const scales = p.scales + scale;
    char* const to = s.stages + to_stage * stage_bytes;
    uint64_t* const full = s.full + to_stage;
    barrier_wait(s.empty + to_stage, to_phase ^ 1);
    barrier_expect(full, blocks * 32 + code_size + scale_size);
    copy_bulk(to + lane * row_bytes, packed, blocks * 32, full);
    copy_bulk(to + codes_at + lane * code_bytes, codes, code_size, full);
    copy_bulk(to + scales_at + lane * scale_bytes, scales, scale_size, full);
  }

  __device__ void compute() {
    for (int l = 0; l < g.num_layers; ++l) {
      index = l;
      for (int i = tid; i < static_cast<int>(sizeof(LayerArgs) / 8); i += computing) {
        reinterpret_cast<uint64_t*>(s.layer)[i] = reinterpret_cast<const uint64_t*>(g.layers + l)[i];
      }
      sync_computing();
      multiply(inputs);
      wait_for_all();
      attend();
      wait_for_all();
      multiply(outputs);
      wait_for_all();
      multiply(gate_up);
      wait_for_all();
      if (g.experts > 0) choose_experts();
      multiply(down);
      if (g.experts > 0) {
        wait_for_all();
        adapters_down();
        wait_for_all();
        adapters_up();
      }
      if (l + 1 < g.num_layers) wait_for_all();
    }
  }

 private:
  /// Where a row of a tile lies.
  struct Place {
    int projection, row;
  };

  __device__ int cols_of(int part) const { return part == outputs ? q_size : part == down ? g.intermediate : g.hidden; }
  __device__ int tiles_of(int part) const {
    if (part == inputs) return (q_size + 2 * kv_size) / tile_rows;
    return (part == gate_up ? 2 * g.intermediate : g.hidden) / tile_rows;
  }
  /// Of gate and up a tile has eight rows each, so that one thread sees both.
  __device__ Place place_of(int part, int tile, int r) const {
    int row = tile * tile_rows + r;
    if (part == outputs) return {3, row};
    if (part == down) return {6, row};
    if (part == gate_up) return {r < 8 ? 4 : 5, tile * 8 + r % 8};
    if (row < q_size) return {0, row};
    row -= q_size;
    return row < kv_size ? Place{1, row} : Place{2, row - kv_size};
  }
  /// LoRA's rows of a part, projection by projection; then the router's.
  __device__ int lora_rows(int part) const { return g.rank * (part == inputs ? 3 : part == gate_up ? 2 : 1); }
  __device__ int side_rows(int part) const { return lora_rows(part) + (part == gate_up ? g.experts : 0); }
  __device__ static int first_projection(int part) {
    return part == inputs ? 0 : part == outputs ? 3 : part == gate_up ? 4 : 6;
  }

  __device__ void give_up() { asm volatile("trap;"); }
  __device__ void wait_until(const unsigned* counter, unsigned value) {
    const long long began = clock64();
    unsigned seen;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
      if (clock64() - began > patience) give_up();
    } while (seen < value);
  }
  __device__ void wait_for_all() {
    sync_computing();
    barriers += static_cast<unsigned>(grid);
    if (tid == 0) {
      __threadfence();
      atomicAdd(g.barrier, 1u);
      wait_until(g.barrier, barriers);
      __threadfence();
    }
    sync_computing();
  }

  /// 1 / rms of every row of `x`, in shared memory.
  __device__ void find_rstd(const bf16* x) {
    float squares[most_rows] = {};
#pragma unroll
    for (int r = 0; r < most_rows; ++r) {
      if (r >= g.n) break;
      for (int c = tid * 8; c < g.hidden; c += computing * 8) {
        const uint4 v = load_shared_result(x + r * g.hidden + c);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float a = low_half((&v.x)[i]), b = high_half((&v.x)[i]);
          squares[r] = fmaf(a, a, squares[r]);
          squares[r] = fmaf(b, b, squares[r]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < most_rows; ++r) {
      if (r >= g.n) break;
      const float sum = warp_sum(squares[r]);
      if (lane == 0) s.partial[warp * g.n + r] = sum;
    }
    sync_computing();
    if (tid < g.n) {
      float sum = 0.0f;
      for (int w = 0; w < warps; ++w) sum += s.partial[w * g.n + tid];
      s.rstd[tid] = 1.0f / sqrtf(sum / static_cast<float>(g.hidden) + g.eps);
    }
    sync_computing();
  }

  /// Columns [first, first + count) of the rows of `from` as fp16; normed where `norm` is given.
  __device__ void stage_x(const bf16* from, int cols, int first, int count, const float* norm) {
    for (int c = tid * 8; c < count; c += computing * 8) {
      float w[8];
      if (norm != nullptr) load(w, norm + first + c);
#pragma unroll
      for (int r = 0; r < most_rows; ++r) {
        if (r >= g.n) break;
        const uint4 v = load_shared_result(from + static_cast<int64_t>(r) * cols + first + c);
        uint4 out;
        const float rstd = norm != nullptr ? s.rstd[r] : 1.0f;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float a = low_half((&v.x)[i]), b = high_half((&v.x)[i]);
          if (norm != nullptr) a = in_bf16(in_bf16(a * rstd) * w[2 * i]), b = in_bf16(in_bf16(b * rstd) * w[2 * i + 1]);
          (&out.x)[i] = as_halves(a, b);
        }
        *reinterpret_cast<uint4*>(s.x + r * g.x_stride + c) = out;
      }
    }
    sync_computing();
  }

  /// One stage: 16 rows of W times n rows of x; the warps' sums are added to the tile's.
  __device__ void multiply_stage(int part, int tile, int tile_index, int first, int blocks) {
    barrier_wait(s.full + stage, phase);
    const char* const from = s.stages + stage * stage_bytes;
    const int line = lane / 4, quad = lane % 4, own = warp * 4;
    float sum[4] = {};
    if (own < blocks) {
      const int row_blocks = cols_of(part) / 64;
      float scale[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int r = line + 8 * h;
        const Place place = place_of(part, tile, r);
        const int at = place.row * row_blocks + first;
        const int group = (at + own + quad) / 256 - (at / 256 & ~3);
        const auto code = static_cast<uint8_t>(from[codes_at + r * code_bytes + at % 16 + own + quad]);
        const float second = reinterpret_cast<const float*>(from + scales_at + r * scale_bytes)[group];
        scale[h] = __fadd_rn(__fmul_rn(s.dynamic[code], second), s.layer->projections[place.projection].offset);
      }
      const char* const table = reinterpret_cast<const char*>(s.table) + lane * 4;
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        const char* const at = from + line * row_bytes + (own + b) * 32 + quad * 8;
        const uint2 low = *reinterpret_cast<const uint2*>(at);
        const uint2 high = *reinterpret_cast<const uint2*>(at + 8 * row_bytes);
        uint4 v0 = {}, v1 = {};
        if (line < g.n) {
          const auto* const x = reinterpret_cast<const uint4*>(s.x + line * g.x_stride + (own + b) * 64 + quad * 16);
          v0 = x[0], v1 = x[1];
        }
        const auto value = [&](uint32_t word, int byte) {
          const uint32_t place = (byte == 0 ? word << 7 : word >> (8 * byte - 7)) & 0x7f80u;
          return *reinterpret_cast<const uint32_t*>(table + place);
        };
        float block_sum[4] = {};
        multiply_add_f16(block_sum, {value(low.x, 0), value(high.x, 0), value(low.x, 1), value(high.x, 1)}, v0.x, v0.y);
        multiply_add_f16(block_sum, {value(low.x, 2), value(high.x, 2), value(low.x, 3), value(high.x, 3)}, v0.z, v0.w);
        multiply_add_f16(block_sum, {value(low.y, 0), value(high.y, 0), value(low.y, 1), value(high.y, 1)}, v1.x, v1.y);
        multiply_add_f16(block_sum, {value(low.y, 2), value(high.y, 2), value(low.y, 3), value(high.y, 3)}, v1.z, v1.w);
        const float low_scale = __shfl_sync(all_lanes, scale[0], (lane & ~3) | b);
        const float high_scale = __shfl_sync(all_lanes, scale[1], (lane & ~3) | b);
        sum[0] = fmaf(block_sum[0], low_scale, sum[0]);
        sum[1] = fmaf(block_sum[1], low_scale, sum[1]);
        sum[2] = fmaf(block_sum[2], high_scale, sum[2]);
        sum[3] = fmaf(block_sum[3], high_scale, sum[3]);
      }
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(s.empty + stage);
    if (++stage == g.stages) stage = 0, phase ^= 1;

    float* const own_partial = s.partial + (waiting * warps + warp) * tile_rows * g.n;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (2 * quad + i < g.n) own_partial[(line + 8 * h) * g.n + 2 * quad + i] = sum[2 * h + i];
      }
    }
    if (++waiting == g.most_waiting) add_waiting(tile_index + 1, first);
  }

  /// The warps' sums of the last tiles before `end` are added up.
  __device__ void add_waiting(int end, int first) {
    if (waiting == 0) return;
    sync_computing();
    const int outputs_of_tile = tile_rows * g.n;
    for (int i = tid; i < waiting * outputs_of_tile; i += computing) {
      const float* const from = s.partial + i / outputs_of_tile * warps * outputs_of_tile + i % outputs_of_tile;
      float total = 0.0f;
#pragma unroll
      for (int w = 0; w < warps; ++w) total += from[w * outputs_of_tile];
      float* const to = s.sums + (end - waiting) * outputs_of_tile + i;
      *to = first == 0 ? total : *to + total;
    }
    waiting = 0;
    sync_computing();
  }

  __device__ const void* side_weight(int part, int row) const {
    const int lora = lora_rows(part), cols = cols_of(part);
    if (row < lora) {
      return s.layer->projections[first_projection(part) + row / g.rank].lora_a +
             static_cast<int64_t>(row % g.rank) * cols;
    }
    const int64_t at = static_cast<int64_t>(row - lora) * cols;
    return static_cast<const char*>(s.layer->router) + at * (s.layer->router_is_bf16 != 0 ? 2 : 4);
  }
  /// The j-th side row of this block, or -1. They go to the last blocks first, which have fewer tiles.
  __device__ int side_row(int part, int j) const {
    const int row = grid - 1 - block + j * grid;
    return row < side_rows(part) ? row : -1;
  }

  __device__ void multiply(int part) {
    const int cols = cols_of(part), row_blocks = cols / 64, tiles = tiles_of(part), lora = lora_rows(part);
    const bf16* const from = part == inputs    ? g.x
                             : part == outputs ? g.attended
                             : part == gate_up ? g.middle
                                               : g.activated;
    const float* const norm = part == inputs ? s.layer->input_norm : part == gate_up ? s.layer->post_norm : nullptr;
    // B's rows are read at the end, by when they have come.
    if (g.rank > 0) {
      for (int i = tid; i < (tiles - block + grid - 1) / grid * tile_rows; i += computing) {
        const Place place = place_of(part, block + i / tile_rows * grid, i % tile_rows);
        for (int c = 0; c < g.rank; c += 64) {
          prefetch(s.layer->projections[place.projection].lora_b + static_cast<int64_t>(place.row) * g.rank + c);
        }
      }
    }
    if (norm != nullptr) find_rstd(from);
    float side[most_side_rows][most_rows] = {};
    for (int first = 0; first < row_blocks; first += chunk_blocks) {
      const int blocks = min(chunk_blocks, row_blocks - first);
      if (first > 0) sync_computing();  // all have read the columns before
      stage_x(from, cols, first * 64, blocks * 64, norm);
      const int c = tid * 8;
      if (c < blocks * 64) {
#pragma unroll
        for (int j = 0; j < most_side_rows; ++j) {
          const int row = side_row(part, j);
          if (row < 0) break;
          const void* const w = side_weight(part, row);
          const int64_t at = first * 64 + c;
          if (row < lora || s.layer->router_is_bf16 != 0) {
            const uint4 piece = load_streaming(static_cast<const bf16*>(w) + at);
#pragma unroll
            for (int r = 0; r < most_rows; ++r) {
              if (r >= g.n) break;
              side[j][r] = dot_8(piece, *reinterpret_cast<const uint4*>(s.x + r * g.x_stride + c), side[j][r]);
            }
          } else {
            float piece[8];
            load(piece, static_cast<const float*>(w) + at);
#pragma unroll
            for (int r = 0; r < most_rows; ++r) {
              if (r >= g.n) break;
              const auto* const x = reinterpret_cast<const __half2*>(s.x + r * g.x_stride + c);
#pragma unroll
              for (int i = 0; i < 4; ++i) {
                const float2 v = __half22float2(x[i]);
                side[j][r] = fmaf(piece[2 * i], v.x, side[j][r]);
                side[j][r] = fmaf(piece[2 * i + 1], v.y, side[j][r]);
              }
            }
          }
        }
      }
      if (first + blocks == row_blocks && side_row(part, 0) >= 0) finish_side(part, side);
      int tile_index = 0;
      for (int tile = block; tile < tiles; tile += grid) multiply_stage(part, tile, tile_index++, first, blocks);
      add_waiting(tile_index, first);
    }
    sync_computing();  // also where this block has no tile
    finish(part, tiles);
  }

  __device__ void finish_side(int part, const float (&side)[most_side_rows][most_rows]) {
    sync_computing();
#pragma unroll
    for (int j = 0; j < most_side_rows; ++j) {
      if (side_row(part, j) < 0) break;
#pragma unroll
      for (int r = 0; r < most_rows; ++r) {
        if (r >= g.n) break;
        const float sum = warp_sum(side[j][r]);
        if (lane == 0) s.partial[(j * warps + warp) * g.n + r] = sum;
      }
    }
    sync_computing();
    if (tid < most_side_rows * g.n) {
      const int j = tid / g.n, r = tid % g.n, row = side_row(part, j);
      if (row >= 0) {
        float sum = 0.0f;
        for (int w = 0; w < warps; ++w) sum += s.partial[(j * warps + w) * g.n + r];
        sum *= x_unscale;
        if (row < lora_rows(part)) {
          g.u[r * 3 * g.rank + row] = in_bf16(sum);
        } else {
          g.router_logits[r * g.experts + row - lora_rows(part)] = sum;
        }
      }
    }
    sync_computing();
    if (tid == 0) {
      __threadfence();
      atomicAdd(g.side_done + index * parts + part, 1u);
    }
  }

  /// LoRA's B, bias, and what the part does with its rows. Eight lanes share a row of B; each then has one token.
  __device__ void finish(int part, int tiles) {
    const int lora = lora_rows(part);
    if (lora > 0) {
      if (tid == 0) {
        wait_until(g.side_done + index * parts + part, static_cast<unsigned>(min(grid, side_rows(part))));
        __threadfence();
      }
      sync_computing();
      for (int i = tid; i < g.n * lora; i += computing) {
        s.u[i] = __ldcg(g.u + i / lora * 3 * g.rank + i % lora);
      }
      sync_computing();
    }
    const int own_tiles = (tiles - block + grid - 1) / grid;
    const int per_tile = part == gate_up ? 8 : tile_rows, units = own_tiles * per_tile;
    const int token = lane % 8;
    for (int at = warp * 4; at < units; at += warps * 4) {
      const int unit = min(at + lane / 8, units - 1);
      const bool real = at + lane / 8 < units && token < g.n;
      const int tile_index = unit / per_tile, r = unit % per_tile, tile = block + tile_index * grid;
      const Place place = place_of(part, tile, r);
      float y = finished(part, place, tile_index, r, token, lora);
      if (part == gate_up) {
        const Place other = place_of(part, tile, r + 8);
        const float up = finished(part, other, tile_index, r + 8, token, lora);
        y = in_bf16(y / (1.0f + expf(-y)) * up);
        if (real) g.activated[static_cast<int64_t>(token) * g.intermediate + place.row] = rounded<bf16>(y);
        continue;
      }
      if (!real) continue;
      const int row = tile * tile_rows + r;
      if (part == inputs) {
        g.qkv[token * (q_size + 2 * kv_size) + row] = rounded<bf16>(y);
      } else if (part == outputs) {
        const int64_t to = static_cast<int64_t>(token) * g.hidden + row;
        g.middle[to] = rounded<bf16>(y + load_shared_result_one(g.x + to));
      } else {
        const int64_t to = static_cast<int64_t>(token) * g.hidden + row;
        g.ffn[to] = rounded<bf16>(y);
        g.x[to] = rounded<bf16>(load_shared_result_one(g.middle + to) + y);
      }
    }
  }

  __device__ float finished(int part, const Place& place, int tile_index, int r, int token, int lora) {
    const ProjectionArgs& p = s.layer->projections[place.projection];
    const float sum = s.sums[(tile_index * tile_rows + r) * g.n + min(token, g.n - 1)] * x_unscale;
    float y = in_bf16(sum + (p.bias == nullptr ? 0.0f : p.bias[place.row]));
    if (lora == 0) return y;
    float dot[most_rows] = {};
    const bf16* const b = p.lora_b + static_cast<int64_t>(place.row) * g.rank;
    const float* const u = s.u + (place.projection - first_projection(part)) * g.rank;
    for (int c = lane % 8 * 8; c < g.rank; c += 64) {
      const uint4 piece = *reinterpret_cast<const uint4*>(b + c);
#pragma unroll
      for (int t = 0; t < most_rows; ++t) {
        if (t >= g.n) break;
#pragma unroll
        for (int i = 0; i < 8; ++i) dot[t] = fmaf(half_of((&piece.x)[i / 2], i % 2), u[t * lora + c + i], dot[t]);
      }
    }
    float own = 0.0f;
#pragma unroll
    for (int t = 0; t < most_rows; ++t) {
      if (t >= g.n) break;
#pragma unroll
      for (int step = 4; step > 0; step /= 2) dot[t] += __shfl_xor_sync(all_lanes, dot[t], step);
      if (t == token) own = dot[t];
    }
    return in_bf16(p.lora_scale * own + y);
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Attention

  __device__ int first_split_of(int position) const {
    return s.layer->window > 0 && position >= s.layer->window ? (position - s.layer->window + 1) / split_keys : 0;
  }

  __device__ void attend() {
    for (int at = warp * grid + block;; at += warps * grid) {
      int i = 0, unit = at, splits = 0;
      for (; i < g.n; ++i) {
        const int position = g.positions[i];
        splits = position / split_keys + 1 - first_split_of(position);
        if (unit < g.heads * splits) break;
        unit -= g.heads * splits;
      }
      if (i == g.n) return;
      g.head_dim == 128 ? attend_split<16>(i, unit % g.heads, unit / g.heads, splits)
                        : attend_split<8>(i, unit % g.heads, unit / g.heads, splits);
    }
  }

  /// Eight channels of a head turned by the token's angle, as bf16.
  template <int lanes>
  __device__ void turned(float (&v)[8], const bf16* head, int angle_row) {
    constexpr int half = lanes * 4;
    const int channel = lane % lanes * 8;
    const uint4 piece = load_shared_result(head + channel);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = half_of((&piece.x)[i / 2], i % 2);
    if (s.layer->rotates == 0) return;
    const int angle = angle_row * half + channel % half;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float other = __shfl_xor_sync(all_lanes, v[i], lanes / 2);
      const float c = g.cos[angle + i], sn = g.sin[angle + i];
      const float turned_value = channel < half ? __fsub_rn(__fmul_rn(v[i], c), __fmul_rn(other, sn))
                                                : __fadd_rn(__fmul_rn(v[i], c), __fmul_rn(other, sn));
      v[i] = in_bf16(turned_value);
    }
  }

  template <int lanes>
  __device__ void attend_split(int i, int head, int split, int splits) {
    constexpr int at_once = 32 / lanes, d = lanes * 8, batch = 8;
    const int position = g.positions[i], kv_head = head / (g.heads / g.kv_heads);
    const int channel = lane % lanes * 8, group = lane / lanes;
    const int first = (first_split_of(position) + split) * split_keys;
    const int lowest = s.layer->window > 0 ? max(0, position - s.layer->window + 1) : 0;
    const int keys = min(split_keys, position + 1 - first);
    const int angle_row = g.angle_rows[i];
    const CacheView cache = g.caches[static_cast<int64_t>(index) * g.cache_stride + i];
    auto* const cached_keys = static_cast<bf16*>(cache.keys);
    auto* const cached_values = static_cast<bf16*>(cache.values);
    const bf16* const row = g.qkv + i * (q_size + 2 * kv_size);
    const auto place = [&](int key) {
      return (static_cast<int64_t>(first + key) * g.kv_heads + kv_head) * d + channel;
    };
    float* const scores = reinterpret_cast<float*>(s.x) + warp * split_keys;

    float query[8], new_key[8];
    uint4 new_value = {};
    turned<lanes>(query, row + head * d, angle_row);
    const bool has_new = first + keys > position;
    if (has_new) {
      turned<lanes>(new_key, row + q_size + kv_head * d, angle_row);
      new_value = load_shared_result(row + q_size + kv_size + kv_head * d + channel);
      if (head % (g.heads / g.kv_heads) == 0 && group == 0) {
        uint4 packed;
#pragma unroll
        for (int j = 0; j < 4; ++j) (&packed.x)[j] = round_pair(new_key[2 * j], new_key[2 * j + 1]);
        *reinterpret_cast<uint4*>(cached_keys + place(keys - 1)) = packed;
        *reinterpret_cast<uint4*>(cached_values + place(keys - 1)) = new_value;
      }
    }
    const int old_keys = has_new ? keys - 1 : keys;
    float largest = -INFINITY;
    for (int start = 0; start < keys; start += at_once * batch) {
      uint4 piece[batch];
#pragma unroll
      for (int b = 0; b < batch; ++b) {
        const int key = start + b * at_once + group;
        piece[b] = key < old_keys ? load_streaming(cached_keys + place(key)) : uint4{0, 0, 0, 0};
      }
#pragma unroll
      for (int b = 0; b < batch; ++b) {
        const int key = start + b * at_once + group;
        float sum = 0.0f;
#pragma unroll
        for (int c = 0; c < 8; ++c) {
          const float k = has_new && key == keys - 1 ? new_key[c] : half_of((&piece[b].x)[c / 2], c % 2);
          sum = fmaf(query[c], k, sum);
        }
#pragma unroll
        for (int step = lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(all_lanes, sum, step);
        const bool seen = key < keys && first + key >= lowest;
        const float score = seen ? g.attention_scale * sum : -INFINITY;
        largest = fmaxf(largest, score);
        if (lane % lanes == 0 && key < split_keys) scores[key] = score;
      }
    }
    __syncwarp();
#pragma unroll
    for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(all_lanes, largest, step));
    const float base = largest == -INFINITY ? 0.0f : largest;
    float total = 0.0f;
    for (int key = lane; key < keys; key += 32) {
      const float e = expf(scores[key] - base);
      scores[key] = e;
      total += e;
    }
    total = warp_sum(total);
    __syncwarp();
    float sums[8] = {};
    for (int start = 0; start < keys; start += at_once * batch) {
      uint4 piece[batch];
#pragma unroll
      for (int b = 0; b < batch; ++b) {
        const int key = start + b * at_once + group;
        piece[b] = key < old_keys ? load_streaming(cached_values + place(key))
                                  : (has_new && key == keys - 1 ? new_value : uint4{0, 0, 0, 0});
      }
#pragma unroll
      for (int b = 0; b < batch; ++b) {
        const int key = start + b * at_once + group;
        const float weight = key < keys ? scores[key] : 0.0f;
#pragma unroll
        for (int c = 0; c < 8; ++c) sums[c] = fmaf(weight, half_of((&piece[b].x)[c / 2], c % 2), sums[c]);
      }
    }
#pragma unroll
    for (int c = 0; c < 8; ++c) {
#pragma unroll
      for (int step = lanes; step < 32; step *= 2) sums[c] += __shfl_xor_sync(all_lanes, sums[c], step);
    }
    bf16* const out = g.attended + static_cast<int64_t>(i) * q_size + head * d;
    if (splits == 1) {
      if (group == 0) {
        float result[8];
#pragma unroll
        for (int c = 0; c < 8; ++c) result[c] = sums[c] / total;
        store(out + channel, result);
      }
      __syncwarp();  // scores are written again
      return;
    }
    float* const partials = g.partials + static_cast<int64_t>(i * g.heads + head) * g.splits * (d + 2);
    float* const own = partials + split * (d + 2);
    if (lane == 0) own[0] = largest, own[1] = total;
    if (group == 0) {
#pragma unroll
      for (int c = 0; c < 8; ++c) own[2 + channel + c] = sums[c];
    }
    __syncwarp();
    int before = 0;
    if (lane == 0) {
      __threadfence();
      before = atomicAdd(g.head_done + i * g.heads + head, 1);
      __threadfence();
    }
    before = __shfl_sync(all_lanes, before, 0);
    if (before != splits - 1) return;
    if (lane == 0) g.head_done[i * g.heads + head] = 0;
    join<d>(out, partials, splits);
  }

  /// In the order of the splits, whoever was last.
  template <int d>
  __device__ void join(bf16* out, const float* partials, int splits) {
    constexpr int each = d / 32;
    float largest = -INFINITY;
    for (int split = lane; split < splits; split += 32) largest = fmaxf(largest, __ldcg(partials + split * (d + 2)));
    largest = warp_max(largest);
    float total = 0.0f, sums[each] = {};
#pragma unroll 4
    for (int split = 0; split < splits; ++split) {
      const float* const partial = partials + split * (d + 2);
      const float weight = expf(__ldcg(partial) - largest);
      total = fmaf(weight, __ldcg(partial + 1), total);
#pragma unroll
      for (int c = 0; c < each; ++c) sums[c] = fmaf(weight, __ldcg(partial + 2 + c * 32 + lane), sums[c]);
    }
#pragma unroll
    for (int c = 0; c < each; ++c) out[c * 32 + lane] = rounded<bf16>(sums[c] / total);
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Experts

  /// Every block chooses for itself, and asks for its rows of the chosen adapters.
  __device__ void choose_experts() {
    if (tid < g.n) {
      int* const chosen = s.chosen + tid * g.top_k;
      float* const w = s.weights + tid * g.top_k;
      for (int k = 0; k < g.top_k; ++k) {
        int best = -1;
        float at_best = 0.0f;
        for (int e = 0; e < g.experts; ++e) {
          bool taken = false;
          for (int earlier = 0; earlier < k; ++earlier) taken = taken || chosen[earlier] == e;
          const float logit = __ldcg(g.router_logits + tid * g.experts + e);
          if (taken || (best >= 0 && !(logit > at_best))) continue;
          best = e;
          at_best = logit;
        }
        chosen[k] = best;
        w[k] = at_best;
      }
      const float largest = w[0];
      float sum = 0.0f;
      for (int k = 0; k < g.top_k; ++k) sum += w[k] = expf(w[k] - largest);
      for (int k = 0; k < g.top_k; ++k) w[k] /= sum;
      if (block == 0) {
        const int64_t to = (static_cast<int64_t>(index) * g.n + tid) * g.top_k;
        for (int k = 0; k < g.top_k; ++k) g.chosen[to + k] = chosen[k], g.weights[to + k] = w[k];
      }
    }
    sync_computing();
    if (tid == 0) {
      int distinct = 0;
      for (int slot = 0; slot < g.n * g.top_k; ++slot) {
        int at = 0;
        while (at < distinct && s.lists[1 + at] != s.chosen[slot]) ++at;
        if (at == distinct) {
          s.lists[1 + at] = s.chosen[slot];
          s.lists[1 + most_slots + at] = 0;
          ++distinct;
        }
        s.lists[1 + most_slots + at] |= 1 << (slot / g.top_k);
      }
      s.lists[0] = distinct;
    }
    sync_computing();
    const int rows = s.lists[0] * g.adapter_dim, lines = g.hidden / 64;
    for (int i = tid;; i += computing) {  // by the order in which warps take rows
      const int unit = block + i / lines * grid;
      if (unit >= rows) break;
      const int64_t row =
          static_cast<int64_t>(s.lists[1 + unit / g.adapter_dim]) * g.adapter_dim + unit % g.adapter_dim;
      prefetch(s.layer->adapter_down + row * g.hidden + i % lines * 64);
    }
    const int up_lines = (g.adapter_dim + 63) / 64 * s.lists[0];
    for (int i = tid;; i += computing) {
      const int column = block + i / up_lines * grid;
      if (column >= g.hidden) break;
      const int expert = s.lists[1 + i % up_lines / ((g.adapter_dim + 63) / 64)];
      prefetch(s.layer->adapter_up + (static_cast<int64_t>(expert) * g.hidden + column) * g.adapter_dim +
               i % up_lines % ((g.adapter_dim + 63) / 64) * 64);
    }
  }

  /// A warp takes a row of one expert, for all tokens that chose it.
  __device__ void adapters_down() {
    stage_x(g.ffn, g.hidden, 0, g.hidden, nullptr);
    const int rows = s.lists[0] * g.adapter_dim;
    for (int unit = block + warp * grid; unit < rows; unit += warps * grid) {
      const int at = unit / g.adapter_dim, a = unit % g.adapter_dim;
      const int expert = s.lists[1 + at], tokens = s.lists[1 + most_slots + at];
      const bf16* const row = s.layer->adapter_down + (static_cast<int64_t>(expert) * g.adapter_dim + a) * g.hidden;
      float sum[most_rows] = {};
      constexpr int ahead = 8;
      for (int start = lane * 8; start < g.hidden; start += 256 * ahead) {
        uint4 piece[ahead];
#pragma unroll
        for (int j = 0; j < ahead; ++j) {
          piece[j] = start + j * 256 < g.hidden ? load_streaming(row + start + j * 256) : uint4{0, 0, 0, 0};
        }
#pragma unroll
        for (int j = 0; j < ahead; ++j) {
          if (start + j * 256 >= g.hidden) break;
#pragma unroll
          for (int t = 0; t < most_rows; ++t) {
            if ((tokens >> t & 1) == 0) continue;
            sum[t] = dot_8(piece[j], *reinterpret_cast<const uint4*>(s.x + t * g.x_stride + start + j * 256), sum[t]);
          }
        }
      }
#pragma unroll
      for (int t = 0; t < most_rows; ++t) {
        if ((tokens >> t & 1) == 0) continue;
        const float hidden = in_bf16(warp_sum(sum[t]) * x_unscale);
        int slot = 0;
        while (s.chosen[t * g.top_k + slot] != expert) ++slot;
        if (lane == 0) {
          g.adapted[static_cast<int64_t>(t * g.top_k + slot) * g.adapter_dim + a] =
              rounded<bf16>(0.5f * hidden * (1.0f + erff(hidden * 0.70710678118654752f)));
        }
      }
    }
  }

  /// A warp takes a column of the stream.
  __device__ void adapters_up() {
    bf16* const h = reinterpret_cast<bf16*>(s.x);  // (n * K, A)
    for (int i = tid * 8; i < g.n * g.top_k * g.adapter_dim; i += computing * 8) {
      *reinterpret_cast<uint4*>(h + i) = load_shared_result(g.adapted + i);
    }
    sync_computing();
    for (int column = block + warp * grid; column < g.hidden; column += warps * grid) {
      for (int t = 0; t < g.n; ++t) {
        float sum = 0.0f;
        for (int k = 0; k < g.top_k; ++k) {
          const int slot = t * g.top_k + k;
          const bf16* const row =
              s.layer->adapter_up + (static_cast<int64_t>(s.chosen[slot]) * g.hidden + column) * g.adapter_dim;
          float dot = 0.0f;
          for (int a = lane * 8; a < g.adapter_dim; a += 256) {
            const uint4 w = __ldg(reinterpret_cast<const uint4*>(row + a));
            const uint4 v = *reinterpret_cast<const uint4*>(h + slot * g.adapter_dim + a);
#pragma unroll
            for (int i = 0; i < 8; ++i) dot = fmaf(half_of((&w.x)[i / 2], i % 2), half_of((&v.x)[i / 2], i % 2), dot);
          }
          sum = __fadd_rn(sum, __fmul_rn(s.weights[slot], in_bf16(warp_sum(dot))));
        }
        bf16* const to = g.x + static_cast<int64_t>(t) * g.hidden + column;
        if (lane == 0) *to = rounded<bf16>(__fadd_rn(load_shared_result_one(to), __fmul_rn(g.adapter_scale, sum)));
      }
    }
  }

  const Args& g;
  const Shared& s;
  int tid, warp, lane, block, grid, q_size, kv_size;
  int index = 0;             // of the layer
  int stage = 0, phase = 0;  // of the ring
  int waiting = 0;           // tiles whose sums lie warp by warp
  unsigned barriers = 0;
};

#endif

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
  Block block(g, s);
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

constexpr int least_stages = 2, enough_stages = 6;

bool is_aligned(const void* data) { return data != nullptr && reinterpret_cast<uintptr_t>(data) % 16 == 0; }

}  // namespace
}  // namespace cuda

struct DecodeLayers::Memory {
  cuda::Args args;
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

/// Fills `to` from a projection (rows, cols); false where it is none that the kernel can read.
bool take_projection(ProjectionArgs& to, const DecodeProjection& from, int64_t rows, int64_t cols, int64_t rank) {
  if (from.weight == nullptr || from.weight->absmax_u8 == nullptr || from.rank != rank) return false;
  const Nf4View& w = *from.weight;
  const int64_t most_int = int64_t{1} << 31;
  if (w.rows != rows || w.cols != cols || cols % 256 != 0 || rows * cols / 64 >= most_int) return false;
  if (!cuda::is_aligned(w.packed) || !cuda::is_aligned(w.absmax_u8)) return false;
  if (rank > 0 && (from.lora_a.dtype != DType::bf16 || from.lora_b.dtype != DType::bf16 ||
                   !cuda::is_aligned(from.lora_a.data) || !cuda::is_aligned(from.lora_b.data))) {
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
  check(cudaFuncGetAttributes(&attributes, decode_layers_kernel), "decode_layers");
  if (attributes.ptxVersion < 90) return nullptr;  // compiled for an older architecture: its body is empty
  int cooperative = 0;
  check(cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, exec.cuda->device()), "decode_layers");
  const int64_t c = shape.hidden, f = shape.intermediate, q = shape.heads * shape.head_dim;
  const int64_t kv = shape.kv_heads * shape.head_dim, rank = layers[0].projections[0].rank;
  if (cooperative == 0 || (shape.head_dim != 64 && shape.head_dim != 128) || f % 16 != 0 || rank % 8 != 0) {
    return nullptr;
  }
  if (shape.num_experts > 0 && (shape.top_k * most_rows > most_slots || shape.top_k > shape.num_experts ||
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
    if (!cuda::is_aligned(from.input_norm.data) || !cuda::is_aligned(from.post_norm.data)) return nullptr;
    to.input_norm = from.input_norm.as<float>();
    to.post_norm = from.post_norm.as<float>();
    to.window = static_cast<int>(from.window);
    to.rotates = from.rotates ? 1 : 0;
    if (shape.num_experts == 0) continue;
    if (!cuda::is_aligned(from.router.data) || !cuda::is_aligned(from.adapter_down.data) ||
        !cuda::is_aligned(from.adapter_up.data) || from.adapter_down.dtype != DType::bf16 ||
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
  check(cudaFuncSetAttribute(decode_layers_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(memory->room)),
        "decode_layers");

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
  check(cudaLaunchKernelEx(&config, decode_layers_kernel, g), "decode_layers");
  check_launch("decode_layers");
}

}  // namespace caravan
