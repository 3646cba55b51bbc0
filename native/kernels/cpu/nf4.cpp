#include "kernels/nf4.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cpu/element.h"

namespace caravan {

// bitsandbytes' own constants: regenerating them from the normal distribution differs in the eighth digit.
const std::array<float, 16> nf4_code{
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// bitsandbytes' own literals for the midpoints of neighbouring codes. Some midpoints lie exactly between two floats, and
// these decide which it is: computing them anew moves four of them by a bit.
const std::array<float, 15> nf4_thresholds{
    -0.8480964004993439f,  -0.6106329262256622f,   -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f,
    -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,   0.2035212516784668f,
    0.2920137718319893f,   0.3893125355243683f,    0.5016634166240692f,  0.6427869200706482f,   0.8614784181118011f,
};

namespace {

/// One point of torch.linspace(0.1, 1, points) in fp32: counted from the nearer end, product and sum rounded once (torch
/// builds this map on the CPU, where its vector code fuses them).
float linspace(int index, int points) {
  const float step = (1.0f - 0.1f) / static_cast<float>(points - 1);
  return index < points / 2 ? std::fma(step, static_cast<float>(index), 0.1f)
                            : std::fma(-step, static_cast<float>(points - 1 - index), 1.0f);
}

/// bitsandbytes' create_dynamic_map(signed, max_exponent_bits = 7, total_bits = 8).
std::array<float, 256> make_dynamic_code(bool is_signed) {
  std::array<float, 256> result{};
  size_t n = 0;
  for (int exponent = 0; exponent < 7; ++exponent) {
    const int items = is_signed ? 1 << exponent : 2 << exponent;
    const auto scale = static_cast<float>(std::pow(10.0, exponent - 6));
    for (int i = 0; i < items; ++i) {
      const float mean = (linspace(i, items + 1) + linspace(i + 1, items + 1)) / 2.0f;
      result[n++] = scale * mean;
      if (is_signed) result[n++] = -scale * mean;
    }
  }
  result[n++] = 0.0f;
  result[n++] = 1.0f;
  std::sort(result.begin(), result.end());
  return result;
}

uint8_t nf4_nibble(float x) {
  // NaN (0 * infinity in an all-zero block) is greater than nothing: code 0, as on CUDA.
  uint8_t code = 0;
  for (const float threshold : nf4_thresholds) code += x > threshold ? 1 : 0;
  return code;
}

}  // namespace

const std::array<float, 256> dynamic_code_signed = make_dynamic_code(true);
const std::array<float, 256> dynamic_code_unsigned = make_dynamic_code(false);

uint8_t quantize_dynamic(const std::array<float, 256>& code, float value) {
  int pivot = 127, upper = 255, lower = 0;
  for (int step = 64; step > 0; step >>= 1) {
    if (value > code[static_cast<size_t>(pivot)]) {
      lower = pivot;
      pivot += step;
    } else {
      upper = pivot;
      pivot -= step;
    }
  }
  const float at = code[static_cast<size_t>(pivot)];
  if (value > at) return static_cast<uint8_t>(value > (code[static_cast<size_t>(upper)] + at) * 0.5f ? upper : pivot);
  return static_cast<uint8_t>(value < (code[static_cast<size_t>(lower)] + at) * 0.5f ? lower : pivot);
}

Nf4View Nf4Storage::view() const {
  Nf4View result;
  result.packed = packed.data();
  result.absmax = absmax.empty() ? nullptr : absmax.data();
  result.absmax_u8 = absmax_u8.empty() ? nullptr : absmax_u8.data();
  result.absmax2 = absmax2.empty() ? nullptr : absmax2.data();
  result.offset = offset;
  result.rows = rows;
  result.cols = cols;
  return result;
}

size_t Nf4Storage::bytes() const {
  return packed.size() + absmax.size() * sizeof(float) + absmax_u8.size() + absmax2.size() * sizeof(float);
}

namespace {

float mean(const float* values, int64_t count) {
  double sum = 0.0;
  for (int64_t begin = 0; begin < count; begin += nf4_mean_block) {
    double part = 0.0;
    for (int64_t i = begin; i < std::min(count, begin + nf4_mean_block); ++i) part += static_cast<double>(values[i]);
    sum += part;
  }
  return count == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(count));
}

/// A whole block of 64, in loops that every compiler makes vectors of.
template <typename T>
void quantize_block(uint8_t* packed, float* absmax, const T* weight) {
  constexpr int together = 16;
  float values[nf4_block];
  for (int64_t i = 0; i < nf4_block; ++i) values[i] = static_cast<float>(weight[i]);
  // Magnitudes are in order as integers are; NaN, which is greater than nothing, counts as 0.
  int32_t largest = 0;
  for (const float value : values) {
    const auto bits = static_cast<int32_t>(std::bit_cast<uint32_t>(value) & 0x7fffffffu);
    const int32_t magnitude = bits > 0x7f800000 ? 0 : bits;
    largest = magnitude > largest ? magnitude : largest;
  }
  *absmax = std::bit_cast<float>(largest);
  const float inverse = 1.0f / *absmax;
  for (int64_t first = 0; first < nf4_block; first += together) {
    float x[together];
    int32_t codes[together] = {};
    for (int i = 0; i < together; ++i) x[i] = values[first + i] * inverse;
    for (const float threshold : nf4_thresholds) {
      for (int i = 0; i < together; ++i) codes[i] += x[i] > threshold ? 1 : 0;
    }
    for (int i = 0; i < together; i += 2) {
      packed[(first + i) / 2] = static_cast<uint8_t>(codes[i] << 4 | codes[i + 1]);
    }
  }
}

void quantize_blocks(const Exec& exec, uint8_t* packed, float* absmaxes, ConstPtr weight, int64_t count,
                     int64_t blocksize) {
  parallel_for(exec, (count + blocksize - 1) / blocksize, 64, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      if (blocksize == nf4_block && (block + 1) * nf4_block <= count) {
        dispatch(weight.dtype, [&]<typename T>() {
          quantize_block(packed + block * nf4_block / 2, absmaxes + block, weight.as<T>() + block * nf4_block);
        });
        continue;
      }
      const int64_t begin = block * blocksize, end = std::min(count, begin + blocksize);
      float absmax = 0.0f;
      for (int64_t i = begin; i < end; ++i) absmax = std::max(absmax, std::fabs(cpu::load_element(weight, i)));
      absmaxes[block] = absmax;
      const float inverse = 1.0f / absmax;
      // Blocks begin at even elements (every block size is even), so a byte belongs to one block.
      for (int64_t i = begin; i < end; i += 2) {
        const uint8_t high = nf4_nibble(cpu::load_element(weight, i) * inverse);
        // The padding after an odd count is a zero.
        const uint8_t low = i + 1 < end ? nf4_nibble(cpu::load_element(weight, i + 1) * inverse) : nf4_nibble(0.0f);
        packed[i / 2] = static_cast<uint8_t>(high << 4 | low);
      }
    }
  });
}

void quantize_absmax(uint8_t* codes, float* absmax2, const float* absmax, int64_t blocks, float offset) {
  for (int64_t begin = 0; begin < blocks; begin += nf4_nested_block) {
    const int64_t end = std::min(blocks, begin + nf4_nested_block);
    float largest = 0.0f;
    for (int64_t b = begin; b < end; ++b) largest = std::max(largest, std::fabs(absmax[b] - offset));
    absmax2[begin / nf4_nested_block] = largest;
    const float inverse = 1.0f / largest;
    for (int64_t b = begin; b < end; ++b) {
      codes[b] = quantize_dynamic(dynamic_code_signed, (absmax[b] - offset) * inverse);
    }
  }
}

}  // namespace

Nf4Storage nf4_quantize(const Exec& exec, ConstPtr weight, int64_t rows, int64_t cols, bool double_quant,
                        int64_t blocksize) {
  const int64_t count = rows * cols;
  Nf4Storage result;
  result.rows = rows;
  result.cols = cols;
  result.packed.resize(static_cast<size_t>((count + 1) / 2));
  result.absmax.resize(static_cast<size_t>((count + blocksize - 1) / blocksize));
  quantize_blocks(exec, result.packed.data(), result.absmax.data(), weight, count, blocksize);
  if (double_quant) nf4_quantize_absmax(result, mean(result.absmax.data(), static_cast<int64_t>(result.absmax.size())));
  return result;
}

void nf4_quantize_absmax(Nf4Storage& storage, float offset) {
  const auto blocks = static_cast<int64_t>(storage.absmax.size());
  storage.offset = offset;
  storage.absmax_u8.resize(storage.absmax.size());
  storage.absmax2.resize(static_cast<size_t>((blocks + nf4_nested_block - 1) / nf4_nested_block));
  quantize_absmax(storage.absmax_u8.data(), storage.absmax2.data(), storage.absmax.data(), blocks, offset);
  storage.absmax.clear();
}

namespace cpu {

Nf4View nf4_quantize_into(const Exec& exec, const Nf4Arrays& arrays, ConstPtr weight, int64_t rows, int64_t cols) {
  Nf4View view{arrays.packed, arrays.absmax, arrays.absmax_u8, arrays.absmax2, 0.0f, rows, cols};
  std::vector<float> first(arrays.absmax == nullptr ? static_cast<size_t>(view.blocks()) : 0);
  float* const absmax = arrays.absmax == nullptr ? first.data() : arrays.absmax;
  quantize_blocks(exec, arrays.packed, absmax, weight, rows * cols, nf4_block);
  if (arrays.absmax == nullptr) {
    view.offset = mean(absmax, view.blocks());
    quantize_absmax(arrays.absmax_u8, arrays.absmax2, absmax, view.blocks(), view.offset);
  }
  return view;
}

void nf4_dequantize(const Exec& exec, Ptr out, const Nf4View& weight) {
  const int64_t count = weight.rows * weight.cols;
  parallel_for(exec, weight.blocks(), 64, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const float absmax =
          weight.absmax
              ? weight.absmax[block]
              : dynamic_code_signed[weight.absmax_u8[block]] * weight.absmax2[block / nf4_nested_block] + weight.offset;
      for (int64_t i = block * nf4_block; i < std::min(count, (block + 1) * nf4_block); ++i) {
        const uint8_t byte = weight.packed[i / 2];
        store_element(out, i, nf4_code[i % 2 == 0 ? byte >> 4 : byte & 15] * absmax);
      }
    }
  });
}

}  // namespace cpu
}  // namespace caravan
