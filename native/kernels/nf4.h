// NF4 with double quantisation, as bitsandbytes computes and packs it (Dettmers et al., arXiv 2305.14314): blocks of 64
// over the flattened row-major weight, fp32 absmax per block, the absmax themselves (minus their mean) in 8-bit dynamic
// codes with blocks of 256.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/exec.h"

namespace caravan {

constexpr int64_t nf4_block = 64;
constexpr int64_t nf4_nested_block = 256;

/// The sixteen values of a code (index = code), fp32 as bitsandbytes has them.
extern const std::array<float, 16> nf4_code;
/// Between neighbouring codes: a value belongs to the upper one only when it is strictly greater.
extern const std::array<float, 15> nf4_thresholds;
/// The 256 values of bitsandbytes' dynamic 8-bit map: signed (index 127 is 0, no -1) and unsigned (index 0 is 0).
extern const std::array<float, 256> dynamic_code_signed;
extern const std::array<float, 256> dynamic_code_unsigned;

/// Nearest code by bitsandbytes' search (7-step binary search from pivot 127, midpoint keeps the pivot).
uint8_t quantize_dynamic(const std::array<float, 256>& code, float value);

/// A quantised weight matrix (rows, cols), row-major over rows * cols elements; blocks may span rows. Views only.
/// value(i) = nf4_code[nibble(i)] * absmax(i / 64); byte k holds element 2k in its HIGH nibble.
/// With double quantisation absmax(b) = dynamic_code_signed[absmax_u8[b]] * absmax2[b / 256] + offset; else absmax[b].
struct Nf4View {
  const uint8_t* packed = nullptr;     // ((rows * cols + 1) / 2)
  const float* absmax = nullptr;       // (blocks) or null
  const uint8_t* absmax_u8 = nullptr;  // (blocks) or null
  const float* absmax2 = nullptr;      // (ceil(blocks / 256))
  float offset = 0.0f;
  int64_t rows = 0;
  int64_t cols = 0;

  int64_t blocks() const { return (rows * cols + nf4_block - 1) / nf4_block; }
};

/// Where a quantised weight goes: the arrays of Nf4View in the caller's memory, on the Exec's device.
struct Nf4Arrays {
  uint8_t* packed = nullptr;
  float* absmax = nullptr;       // null when double quantised
  uint8_t* absmax_u8 = nullptr;  // null when not
  float* absmax2 = nullptr;
};

/// Bytes that the arrays of a weight (rows, cols) take together; with `memory`, 16-byte aligned, `arrays` gets its places
/// in it.
size_t nf4_place(Nf4Arrays& arrays, void* memory, int64_t rows, int64_t cols, bool double_quant);

/// What quantisation writes; host memory.
struct Nf4Storage {
  std::vector<uint8_t> packed;
  std::vector<float> absmax;  // empty when double quantised
  std::vector<uint8_t> absmax_u8;
  std::vector<float> absmax2;
  float offset = 0.0f;
  int64_t rows = 0;
  int64_t cols = 0;

  Nf4View view() const;
  size_t bytes() const;
};

/// Quantises `weight` (rows, cols) of f32 or bf16. `blocksize` is 64 everywhere but in tests of the format.
Nf4Storage nf4_quantize(const Exec& exec, ConstPtr weight, int64_t rows, int64_t cols, bool double_quant,
                        int64_t blocksize = nf4_block);
/// Quantises `weight` (rows, cols) of f32 or bf16 where it lies: all three are memory of the Exec's device. Waits for it,
/// since the view holds the offset. Every device writes the same bytes.
Nf4View nf4_quantize_into(const Exec& exec, const Nf4Arrays& arrays, ConstPtr weight, int64_t rows, int64_t cols);
/// The mean of absmax, which is the offset, is summed in fp64 over blocks of this many, and the blocks in order.
constexpr int64_t nf4_mean_block = 256;
/// The second quantisation: absmax (blocks) gives way to the 8-bit codes of absmax - offset, in blocks of 256.
void nf4_quantize_absmax(Nf4Storage& storage, float offset);
/// out (rows, cols) = the values, rounded to out's dtype.
void nf4_dequantize(const Exec& exec, Ptr out, const Nf4View& weight);

}  // namespace caravan
