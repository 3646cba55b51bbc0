// What the kernel of decode_layers.cu is told, and the sizes of its pieces.
#pragma once

#include "kernels/decode_layers.h"

namespace caravan::cuda::decode {

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

}  // namespace caravan::cuda::decode
