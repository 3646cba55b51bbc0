// The parts of decode_layers.cu that multiply an NF4 weight: how it comes, meets x, and what LoRA adds.
#pragma once

#include "kernels/cuda/decode_device.cuh"

namespace caravan::cuda::decode {

#if __CUDA_ARCH__ >= 900

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

/// A block of the kernel, with what it does with weights: copy_weights() by the seventeenth warp, all else by the others.
/// N: at least the rows of x.
template <int N>
class WeightParts {
 public:
  __device__ WeightParts(const Args& args, const Shared& shared) : g(args), s(shared) {
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

 protected:
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
    float squares[N] = {};
#pragma unroll
    for (int r = 0; r < N; ++r) {
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
    for (int r = 0; r < N; ++r) {
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
      for (int r = 0; r < N; ++r) {
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
    float side[most_side_rows][N] = {};
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
            for (int r = 0; r < N; ++r) {
              if (r >= g.n) break;
              side[j][r] = dot_8(piece, *reinterpret_cast<const uint4*>(s.x + r * g.x_stride + c), side[j][r]);
            }
          } else {
            float piece[8];
            load(piece, static_cast<const float*>(w) + at);
#pragma unroll
            for (int r = 0; r < N; ++r) {
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

  __device__ void finish_side(int part, const float (&side)[most_side_rows][N]) {
    sync_computing();
#pragma unroll
    for (int j = 0; j < most_side_rows; ++j) {
      if (side_row(part, j) < 0) break;
#pragma unroll
      for (int r = 0; r < N; ++r) {
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
    float dot[N] = {};
    const bf16* const b = p.lora_b + static_cast<int64_t>(place.row) * g.rank;
    const float* const u = s.u + (place.projection - first_projection(part)) * g.rank;
    for (int c = lane % 8 * 8; c < g.rank; c += 64) {
      const uint4 piece = *reinterpret_cast<const uint4*>(b + c);
#pragma unroll
      for (int t = 0; t < N; ++t) {
        if (t >= g.n) break;
#pragma unroll
        for (int i = 0; i < 8; ++i) dot[t] = fmaf(half_of((&piece.x)[i / 2], i % 2), u[t * lora + c + i], dot[t]);
      }
    }
    float own = 0.0f;
#pragma unroll
    for (int t = 0; t < N; ++t) {
      if (t >= g.n) break;
#pragma unroll
      for (int step = 4; step > 0; step /= 2) dot[t] += __shfl_xor_sync(all_lanes, dot[t], step);
      if (t == token) own = dot[t];
    }
    return in_bf16(fmaf(p.lora_scale, own, y));
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

}  // namespace caravan::cuda::decode
