#include "engine/io/gguf_blocks.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "engine/io/half.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

constexpr std::array<GgmlLayout, 11> layouts{{{GgmlType::F32, "F32", 1, 4},
                                              {GgmlType::F16, "F16", 1, 2},
                                              {GgmlType::BF16, "BF16", 1, 2},
                                              {GgmlType::Q8_0, "Q8_0", 32, 34},
                                              {GgmlType::Q4_0, "Q4_0", 32, 18},
                                              {GgmlType::Q4_1, "Q4_1", 32, 20},
                                              {GgmlType::Q5_0, "Q5_0", 32, 22},
                                              {GgmlType::Q5_1, "Q5_1", 32, 24},
                                              {GgmlType::Q4_K, "Q4_K", 256, 144},
                                              {GgmlType::Q5_K, "Q5_K", 256, 176},
                                              {GgmlType::Q6_K, "Q6_K", 256, 210}}};

float half_at(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, 2);
  return half_to_float(bits);
}

void block_q8_0(const uint8_t* b, float* y) {
  const float d = half_at(b);
  for (int i = 0; i < 32; ++i) y[i] = static_cast<float>(static_cast<int8_t>(b[2 + i])) * d;
}

// The 32-element types: 16 bytes of nibbles, low ones first, and for the 5-bit types a word of fifth bits.
void block_q4_0(const uint8_t* b, float* y) {
  const float d = half_at(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>((b[2 + i] & 15) - 8);
    y[i + 16] = d * static_cast<float>((b[2 + i] >> 4) - 8);
  }
}

void block_q4_1(const uint8_t* b, float* y) {
  const float d = half_at(b), m = half_at(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(b[4 + i] & 15) + m;
    y[i + 16] = d * static_cast<float>(b[4 + i] >> 4) + m;
  }
}

int fifth_bit(uint32_t bits, int index) { return static_cast<int>((bits >> index) & 1u) << 4; }

void block_q5_0(const uint8_t* b, float* y) {
  const float d = half_at(b);
  uint32_t high;
  std::memcpy(&high, b + 2, 4);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(((b[6 + i] & 15) | fifth_bit(high, i)) - 16);
    y[i + 16] = d * static_cast<float>(((b[6 + i] >> 4) | fifth_bit(high, i + 16)) - 16);
  }
}

void block_q5_1(const uint8_t* b, float* y) {
  const float d = half_at(b), m = half_at(b + 2);
  uint32_t high;
  std::memcpy(&high, b + 4, 4);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>((b[8 + i] & 15) | fifth_bit(high, i)) + m;
    y[i + 16] = d * static_cast<float>((b[8 + i] >> 4) | fifth_bit(high, i + 16)) + m;
  }
}

/// Scale and minimum of sub-block `j` (0..7), 6 bits each, packed into 12 bytes.
struct ScaleMin {
  float scale;
  float min;
};
ScaleMin scale_min(const uint8_t* s, int j) {
  if (j < 4) return {static_cast<float>(s[j] & 63), static_cast<float>(s[j + 4] & 63)};
  return {static_cast<float>((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4)),
          static_cast<float>((s[j + 4] >> 4) | ((s[j] >> 6) << 4))};
}

void block_q4_k(const uint8_t* b, float* y) {
  const float d = half_at(b), dmin = half_at(b + 2);
  for (int j = 0; j < 8; ++j) {
    const ScaleMin s = scale_min(b + 4, j);
    const float scale = d * s.scale, min = dmin * s.min;
    const uint8_t* q = b + 16 + 32 * (j / 2);
    for (int i = 0; i < 32; ++i) {
      const int n = j % 2 == 0 ? q[i] & 15 : q[i] >> 4;
      y[32 * j + i] = scale * static_cast<float>(n) - min;
    }
  }
}

void block_q5_k(const uint8_t* b, float* y) {
  const float d = half_at(b), dmin = half_at(b + 2);
  const uint8_t* high = b + 16;
  for (int j = 0; j < 8; ++j) {
    const ScaleMin s = scale_min(b + 4, j);
    const float scale = d * s.scale, min = dmin * s.min;
    const uint8_t* q = b + 48 + 32 * (j / 2);
    for (int i = 0; i < 32; ++i) {
      const int n = (j % 2 == 0 ? q[i] & 15 : q[i] >> 4) | (((high[i] >> j) & 1) << 4);
      y[32 * j + i] = scale * static_cast<float>(n) - min;
    }
  }
}

void block_q6_k(const uint8_t* b, float* y) {
  const float d = half_at(b + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* ql = b + 64 * half;
    const uint8_t* qh = b + 128 + 32 * half;
    const uint8_t* scales = b + 192 + 8 * half;
    for (int quarter = 0; quarter < 4; ++quarter) {
      for (int i = 0; i < 32; ++i) {
        const uint8_t low = ql[i + 32 * (quarter % 2)];
        const int n = (quarter < 2 ? low & 15 : low >> 4) | (((qh[i] >> (2 * quarter)) & 3) << 4);
        const float scale = d * static_cast<float>(static_cast<int8_t>(scales[i / 16 + 2 * quarter]));
        y[128 * half + 32 * quarter + i] = scale * static_cast<float>(n - 32);
      }
    }
  }
}

template <typename Block>
void each_block(const GgmlLayout& layout, std::span<const std::byte> blocks, float* out, Block&& block) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(blocks.data());
  const size_t count = blocks.size() / layout.bytes;
  for (size_t i = 0; i < count; ++i) block(bytes + i * layout.bytes, out + static_cast<int64_t>(i) * layout.block);
}

}  // namespace

const GgmlLayout* find_ggml_layout(uint32_t type) {
  for (const GgmlLayout& layout : layouts)
    if (static_cast<uint32_t>(layout.type) == type) return &layout;
  return nullptr;
}

const GgmlLayout& ggml_layout(GgmlType type) { return *find_ggml_layout(static_cast<uint32_t>(type)); }

std::string supported_ggml_types() {
  std::string names;
  for (const GgmlLayout& layout : layouts) names += (names.empty() ? "" : ", ") + std::string(layout.name);
  return names;
}

void dequantize_blocks(GgmlType type, std::span<const std::byte> blocks, float* out) {
  const GgmlLayout& layout = ggml_layout(type);
  switch (type) {
    case GgmlType::F32:
      if (!blocks.empty()) std::memcpy(out, blocks.data(), blocks.size());
      return;
    case GgmlType::F16: return each_block(layout, blocks, out, [](const uint8_t* b, float* y) { *y = half_at(b); });
    case GgmlType::BF16:
      return each_block(layout, blocks, out, [](const uint8_t* b, float* y) {
        *y = std::bit_cast<float>(static_cast<uint32_t>(b[0]) << 16 | static_cast<uint32_t>(b[1]) << 24);
      });
    case GgmlType::Q8_0: return each_block(layout, blocks, out, block_q8_0);
    case GgmlType::Q4_0: return each_block(layout, blocks, out, block_q4_0);
    case GgmlType::Q4_1: return each_block(layout, blocks, out, block_q4_1);
    case GgmlType::Q5_0: return each_block(layout, blocks, out, block_q5_0);
    case GgmlType::Q5_1: return each_block(layout, blocks, out, block_q5_1);
    case GgmlType::Q4_K: return each_block(layout, blocks, out, block_q4_k);
    case GgmlType::Q5_K: return each_block(layout, blocks, out, block_q5_k);
    case GgmlType::Q6_K: return each_block(layout, blocks, out, block_q6_k);
  }
}

namespace {

void put_half(uint8_t* bytes, float value) {
  const uint16_t half = float_to_half(value);
  std::memcpy(bytes, &half, 2);
}

void quantize_q8_0(const float* x, uint8_t* b) {
  float largest = 0.0f;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float d = largest / 127.0f, inverse = d != 0.0f ? 1.0f / d : 0.0f;
  put_half(b, d);
  for (int i = 0; i < 32; ++i) b[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(std::round(x[i] * inverse)));
}

/// The element of the largest magnitude becomes -8, whatever its sign.
void quantize_q4_0(const float* x, uint8_t* b) {
  float largest = 0.0f, with_sign = 0.0f;
  for (int i = 0; i < 32; ++i) {
    if (std::fabs(x[i]) > largest) {
      largest = std::fabs(x[i]);
      with_sign = x[i];
    }
  }
  const float d = with_sign / -8.0f, inverse = d != 0.0f ? 1.0f / d : 0.0f;
  put_half(b, d);
  const auto code = [&](float value) {
    return static_cast<uint8_t>(std::min(15, static_cast<int>(static_cast<int8_t>(value * inverse + 8.5f))));
  };
  for (int i = 0; i < 16; ++i) b[2 + i] = static_cast<uint8_t>(code(x[i]) | (code(x[i + 16]) << 4));
}

}  // namespace

void quantize_blocks(GgmlType type, std::span<const float> values, std::span<std::byte> blocks) {
  auto* to = reinterpret_cast<uint8_t*>(blocks.data());
  switch (type) {
    case GgmlType::F32: std::memcpy(to, values.data(), values.size_bytes()); return;
    case GgmlType::F16:
      for (size_t i = 0; i < values.size(); ++i) put_half(to + 2 * i, values[i]);
      return;
    case GgmlType::Q8_0:
      for (size_t i = 0; i < values.size() / 32; ++i) quantize_q8_0(values.data() + 32 * i, to + 34 * i);
      return;
    case GgmlType::Q4_0:
      for (size_t i = 0; i < values.size() / 32; ++i) quantize_q4_0(values.data() + 32 * i, to + 18 * i);
      return;
    default: throw EngineError("internal", std::string("cannot write the type ") + ggml_layout(type).name);
  }
}

}  // namespace caravan
