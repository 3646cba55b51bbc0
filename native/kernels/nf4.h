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
/// The second quantisation: absmax (blocks) gives way to the 8-bit codes of absmax - offset, in blocks of 256. `offset` is
/// the mean of absmax, whose last bit depends on the order of its sum.
void nf4_quantize_absmax(Nf4Storage& storage, float offset);
/// out (rows, cols) = the values, rounded to out's dtype.
void nf4_dequantize(const Exec& exec, Ptr out, const Nf4View& weight);

}  // namespace caravan
