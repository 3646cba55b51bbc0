// The element types of GGUF tensors that this engine reads, and their block layouts (ggml-quants.c).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace caravan {

/// ggml's numbers.
enum class GgmlType : uint32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  BF16 = 30,
};

struct GgmlLayout {
  GgmlType type;
  const char* name;
  int64_t block;  // elements
  size_t bytes;   // of one block
};

/// Null for a type that this engine does not read.
const GgmlLayout* find_ggml_layout(uint32_t type);
const GgmlLayout& ggml_layout(GgmlType type);
/// "F32, F16, ...": what messages offer.
std::string supported_ggml_types();

/// Whole blocks into `out` (f32), in the order and with the roundings of ggml's reference.
void dequantize_blocks(GgmlType type, std::span<const std::byte> blocks, float* out);

/// `values` (whole blocks) as F32, F16, Q8_0 or Q4_0, as ggml's reference quantises them.
/// @throws EngineError internal for another type
void quantize_blocks(GgmlType type, std::span<const float> values, std::span<std::byte> blocks);

}  // namespace caravan
