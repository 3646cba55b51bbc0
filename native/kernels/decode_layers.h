// All layers of a decoding step in one kernel: what is read of the weights streams without a pause from the first layer to
// the last, while the few numbers in between pass from block to block. For GPUs from Hopper on, bf16 activations, and
// an NF4 base with double quantisation; everything else runs the layer's pieces one by one.
#pragma once

#include <memory>
#include <vector>

#include "kernels/decoding.h"
#include "kernels/nf4.h"

namespace caravan {

/// y = x W^T (+ bias), and with a rank + scale * B (A x). A (rank, in) and B (out, rank) are bf16.
struct DecodeProjection {
  const Nf4View* weight = nullptr;
  const float* bias = nullptr;
  ConstPtr lora_a;
  ConstPtr lora_b;
  int64_t rank = 0;
  float lora_scale = 0.0f;
};

struct DecodeLayer {
  ConstPtr input_norm;              // (C) f32
  ConstPtr post_norm;               // (C) f32
  DecodeProjection projections[7];  // q, k, v, o, gate, up, down
  ConstPtr router;                  // (E, C) f32 or bf16; null without experts
  ConstPtr adapter_down;            // (E, A, C) bf16
  ConstPtr adapter_up;              // (E, C, A) bf16
  int64_t window = 0;
  bool rotates = true;
};

struct DecodeShape {
  int64_t hidden = 0;        // C
  int64_t intermediate = 0;  // F
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t num_experts = 0;  // 0: no adapters
  int64_t top_k = 0;
  int64_t adapter_dim = 0;
  float adapter_scale = 0.0f;
  float norm_eps = 0.0f;
  float attention_scale = 0.0f;
};

/// What one step reads and writes. Device memory.
struct DecodeStep {
  Ptr stream;                         // (N, C) bf16: the embedded tokens on entry, the last layer's output on return
  const CacheView* caches = nullptr;  // (layers, cache_stride): the first N of each layer are used
  int64_t cache_stride = 0;
  const int32_t* positions = nullptr;  // (N)
  const float* cos = nullptr;          // (rows, head_dim / 2)
  const float* sin = nullptr;
  const int32_t* angle_rows = nullptr;  // (N)
  int32_t* experts = nullptr;           // (layers, N, K)
  float* expert_weights = nullptr;      // (layers, N, K)
  int64_t n = 0;                        // up to 8
  int64_t most = 0;                     // every position is below it
};

/// Rounds where the layer's pieces do, but that a weight's code and its block's scale are multiplied in fp32 and not
/// rounded to bf16 before they meet x (the codes are fp16: 2^-11). Sums depend on the shapes alone: a row's bits are the
/// same whatever stands beside it.
class DecodeLayers {
 public:
  /// Null where device, shape or types are none that it knows.
  static std::unique_ptr<DecodeLayers> make(const Exec& exec, const DecodeShape& shape,
                                            const std::vector<DecodeLayer>& layers);
  ~DecodeLayers();
  DecodeLayers(const DecodeLayers&) = delete;
  DecodeLayers& operator=(const DecodeLayers&) = delete;

  /// Allocates nothing once it has run with as large an `n` and `most`.
  void run(const Exec& exec, const DecodeStep& step);
  size_t bytes() const;

 private:
  struct Memory;
  explicit DecodeLayers(std::unique_ptr<Memory> memory);
  std::unique_ptr<Memory> memory_;
};

}  // namespace caravan
