// NF4 and the dynamic 8-bit code worked by hand from bitsandbytes' definition, and bitsandbytes' own output byte for
// byte where its recorded cases are at hand.
#include "kernels/nf4.h"

#include <algorithm>
#include <cstring>

#include "engine/io/safetensors.h"
#include "kernels/cpu/thread_pool.h"
#include "test_data.h"
#include "typed_array.h"

using namespace caravan;
using namespace caravan::test;

namespace {

uint8_t code_at(const Nf4Storage& storage, int64_t i) {
  const uint8_t byte = storage.packed[static_cast<size_t>(i / 2)];
  return i % 2 == 0 ? byte >> 4 : byte & 15;
}

Nf4Storage quantize(const std::vector<float>& values, bool double_quant = false) {
  return nf4_quantize({}, values.data(), 1, static_cast<int64_t>(values.size()), double_quant);
}

/// bitsandbytes' literals for the midpoints of neighbouring codes.
constexpr float thresholds[15] = {
    -0.8480964004993439f,  -0.6106329262256622f,   -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f,
    -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,   0.2035212516784668f,
    0.2920137718319893f,   0.3893125355243683f,    0.5016634166240692f,  0.6427869200706482f,   0.8614784181118011f};

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

}  // namespace

TEST_CASE("the sixteen codes are bitsandbytes' constants and each quantises to itself") {
  const float expected[16] = {-1.0f,
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
                              1.0f};
  std::vector<float> block(expected, expected + 16);
  const Nf4Storage storage = quantize(block);
  CHECK(storage.absmax == std::vector<float>{1.0f});
  for (int64_t i = 0; i < 16; ++i) {
    CHECK(nf4_code[static_cast<size_t>(i)] == expected[i]);
    CHECK(code_at(storage, i) == i);
  }
  // Element 2k lies in the high nibble of byte k.
  CHECK(storage.packed == std::vector<uint8_t>{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef});
}

TEST_CASE("a value on a threshold takes the lower code, the next float above it the upper one") {
  for (int i = 0; i < 15; ++i) {
    const float t = thresholds[i];
    const Nf4Storage storage = quantize({1.0f, t, std::nextafter(t, 2.0f), std::nextafter(t, -2.0f)});
    CHECK(code_at(storage, 1) == i);
    CHECK(code_at(storage, 2) == i + 1);
    CHECK(code_at(storage, 3) == i);
  }
}

TEST_CASE("a block multiplies by the reciprocal of its absmax; the two ways round differently") {
  int told_apart = 0;
  for (const float t : thresholds) {
    for (int step = 1; step < 4000; ++step) {
      const float absmax = 1.0f + static_cast<float>(step) / 1024.0f;
      const float around = t * absmax;
      for (const float x : {std::nextafter(around, -10.0f), around, std::nextafter(around, 10.0f)}) {
        const float multiplied = x * (1.0f / absmax), divided = x / absmax;
        if ((multiplied > t) == (divided > t)) continue;
        ++told_apart;
        const Nf4Storage storage = quantize({absmax, x});
        REQUIRE((nf4_code[code_at(storage, 1)] > t) == (multiplied > t));
      }
    }
  }
  CHECK(told_apart > 100);
}

TEST_CASE("a weight quantised into one buffer has the bytes of one in vectors, and the buffer is as large as said") {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (const int64_t count : {int64_t{1}, int64_t{65}, int64_t{5000}, 3 * nf4_block * nf4_nested_block + 77}) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(random);
    for (const bool double_quant : {false, true}) {
      Nf4Arrays arrays;
      const size_t bytes = nf4_place(arrays, nullptr, 1, count, double_quant);
      CHECK(arrays.packed == nullptr);
      std::vector<uint8_t> memory(bytes + 16, 0xee);
      CHECK(nf4_place(arrays, memory.data(), 1, count, double_quant) == bytes);
      const Nf4View view = nf4_quantize_into({}, arrays, values.data(), 1, count);
      CHECK(memory[bytes] == 0xee);
      const Nf4Storage storage = quantize(values, double_quant);
      CHECK(std::memcmp(view.packed, storage.packed.data(), storage.packed.size()) == 0);
      CHECK(same_bits(view.offset, storage.offset));
      if (double_quant) {
        CHECK(view.absmax == nullptr);
        CHECK(std::memcmp(view.absmax_u8, storage.absmax_u8.data(), storage.absmax_u8.size()) == 0);
        CHECK(std::memcmp(view.absmax2, storage.absmax2.data(), storage.absmax2.size() * sizeof(float)) == 0);
      } else {
        CHECK(view.absmax_u8 == nullptr);
        CHECK(std::memcmp(view.absmax, storage.absmax.data(), storage.absmax.size() * sizeof(float)) == 0);
      }
    }
  }
}

TEST_CASE("a block of zeros: code 0, absmax 0, and -0 when read back") {
  std::vector<float> values(128, 0.0f);
  values[127] = 2.0f;
  const Nf4Storage storage = quantize(values);
  CHECK(storage.absmax == std::vector<float>{0.0f, 2.0f});
  for (int64_t i = 0; i < 64; ++i) REQUIRE(code_at(storage, i) == 0);
  for (int64_t i = 64; i < 127; ++i) REQUIRE(code_at(storage, i) == 7);
  CHECK(code_at(storage, 127) == 15);
  std::vector<float> back(128, 9.0f);
  nf4_dequantize({}, back.data(), storage.view());
  for (size_t i = 0; i < 64; ++i) REQUIRE(same_bits(back[i], -0.0f));
  for (size_t i = 64; i < 127; ++i) REQUIRE(same_bits(back[i], 0.0f));
  CHECK(back[127] == 2.0f);
}

TEST_CASE("odd counts end in half a byte of code 7; blocks run over the ends of rows") {
  for (const int64_t count : {int64_t{1}, int64_t{5}, int64_t{63}, int64_t{65}, int64_t{129}}) {
    const TypedArray values(DType::f32, count, 3);
    const Nf4Storage storage = quantize({values.floats(), values.floats() + count});
    CHECK(static_cast<int64_t>(storage.packed.size()) == (count + 1) / 2);
    CHECK(static_cast<int64_t>(storage.absmax.size()) == (count + 63) / 64);
    CHECK((storage.packed.back() & 15) == 7);
  }
  const TypedArray matrix(DType::f32, 5 * 37, 4);
  const Nf4Storage flat = nf4_quantize({}, matrix.ptr(), 1, 5 * 37, false);
  const Nf4Storage rows = nf4_quantize({}, matrix.ptr(), 5, 37, false);
  CHECK(flat.packed == rows.packed);
  CHECK(flat.absmax == rows.absmax);
}

TEST_CASE("every element equals the definition, for every size, type, block size and thread count") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int64_t block : {32, 64, 256}) {
      for (const int64_t count : {1, 31, 64, 127, 1000, 66666}) {
        const TypedArray values(dtype, count, static_cast<uint32_t>(count), 0.02f);
        const Nf4Storage one = nf4_quantize({}, values.ptr(), 1, count, false, block);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t begin = i / block * block, end = std::min(count, begin + block);
          float absmax = 0.0f;
          if (i == begin) {
            for (int64_t j = begin; j < end; ++j) absmax = std::max(absmax, std::fabs(values[j]));
            REQUIRE(one.absmax[static_cast<size_t>(i / block)] == absmax);
          }
          const float x = values[i] * (1.0f / one.absmax[static_cast<size_t>(i / block)]);
          int nearest = 0;
          for (int code = 1; code < 16; ++code) {
            const double here = std::fabs(static_cast<double>(nf4_code[static_cast<size_t>(code)]) - x);
            if (here < std::fabs(static_cast<double>(nf4_code[static_cast<size_t>(nearest)]) - x)) nearest = code;
          }
          REQUIRE(int{code_at(one, i)} == nearest);
        }
        const auto pool = make_thread_pool(3);
        Exec exec;
        exec.pool = pool.get();
        const Nf4Storage threaded = nf4_quantize(exec, values.ptr(), 1, count, false, block);
        REQUIRE(threaded.packed == one.packed);
        REQUIRE(threaded.absmax == one.absmax);
      }
    }
  }
}

TEST_CASE("the dynamic maps: their ends, their zero, no -1, and 256 values in order") {
  const auto& s = dynamic_code_signed;
  const auto& u = dynamic_code_unsigned;
  CHECK(s[0] == -0.99296875f);
  CHECK(s[1] == doctest::Approx(-0.97890625f).epsilon(1e-7));
  CHECK(s[2] == doctest::Approx(-0.96484375f).epsilon(1e-7));
  CHECK(s[127] == 0.0f);
  CHECK(s[128] == doctest::Approx(5.5e-7f).epsilon(1e-6));
  CHECK(s[129] == doctest::Approx(3.25e-6f).epsilon(1e-6));
  CHECK(s[130] == doctest::Approx(7.75e-6f).epsilon(1e-6));
  CHECK(s[253] == doctest::Approx(0.97890625f).epsilon(1e-7));
  CHECK(s[254] == 0.99296875f);
  CHECK(s[255] == 1.0f);
  CHECK(u[0] == 0.0f);
  CHECK(u[1] == doctest::Approx(3.25e-7f).epsilon(1e-6));
  CHECK(u[2] == doctest::Approx(7.75e-7f).epsilon(1e-6));
  CHECK(u[3] == doctest::Approx(2.125e-6f).epsilon(1e-6));
  CHECK(u[4] == doctest::Approx(4.375e-6f).epsilon(1e-6));
  CHECK(u[253] == doctest::Approx(0.989453125f).epsilon(1e-7));
  CHECK(u[254] == doctest::Approx(0.996484375f).epsilon(1e-7));
  CHECK(u[255] == 1.0f);
  for (size_t i = 1; i < 256; ++i) {
    CHECK(s[i - 1] < s[i]);
    CHECK(u[i - 1] < u[i]);
  }
  for (size_t i = 0; i < 127; ++i) CHECK(s[i] == -s[254 - i]);
}

TEST_CASE("the dynamic code of a value is its nearest; on a midpoint the search keeps its pivot") {
  for (const auto* code : {&dynamic_code_signed, &dynamic_code_unsigned}) {
    for (size_t i = 0; i < 256; ++i) CHECK(quantize_dynamic(*code, (*code)[i]) == i);
    int midpoints = 0;
    for (size_t i = 0; i + 1 < 256; ++i) {
      const float middle = ((*code)[i] + (*code)[i + 1]) * 0.5f;
      const uint8_t at = quantize_dynamic(*code, middle);
      CHECK((at == i || at == i + 1));
      CHECK(quantize_dynamic(*code, std::nextafter(middle, -2.0f)) == i);
      CHECK(quantize_dynamic(*code, std::nextafter(middle, 2.0f)) == i + 1);
      ++midpoints;
    }
    CHECK(midpoints == 255);
    CHECK(quantize_dynamic(*code, 2.0f) == 255);
    CHECK(quantize_dynamic(*code, -2.0f) == 0);
  }
}

TEST_CASE("double quantisation: absmax = code * absmax2 of its 256 + mean, each within half a step of its map") {
  const int64_t blocks = 600, count = blocks * 64 - 11;
  TypedArray values(DType::f32, count, 5, 0.02f);
  for (int64_t i = 0; i < count; ++i) values.floats()[i] *= 1.0f + static_cast<float>(i / 64 % 7);
  const Nf4Storage plain = nf4_quantize({}, values.ptr(), 1, count, false);
  const Nf4Storage nested = nf4_quantize({}, values.ptr(), 1, count, true);
  CHECK(nested.packed == plain.packed);
  CHECK(nested.absmax.empty());
  CHECK(nested.absmax2.size() == 3);
  double sum = 0.0;
  for (const float absmax : plain.absmax) sum += absmax;
  CHECK(nested.offset == doctest::Approx(sum / blocks).epsilon(1e-7));
  std::vector<float> back(static_cast<size_t>(count));
  nf4_dequantize({}, back.data(), nested.view());
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t group = b / 256;
    float largest = 0.0f;
    for (int64_t other = group * 256; other < std::min(blocks, group * 256 + 256); ++other) {
      largest = std::max(largest, std::fabs(plain.absmax[static_cast<size_t>(other)] - nested.offset));
    }
    REQUIRE(nested.absmax2[static_cast<size_t>(group)] == largest);
    const float absmax = dynamic_code_signed[nested.absmax_u8[static_cast<size_t>(b)]] * largest + nested.offset;
    // The map's widest step is 0.9 / 64; its lower end stops short of -1 by half a step.
    REQUIRE(std::fabs(absmax - plain.absmax[static_cast<size_t>(b)]) <= largest * 0.0071f);
    for (int64_t i = b * 64; i < std::min(count, b * 64 + 64); ++i) {
      REQUIRE(same_bits(back[static_cast<size_t>(i)], nf4_code[code_at(nested, i)] * absmax));
    }
  }
}

TEST_CASE("bitsandbytes' own packed codes, scales and values") {
  const auto path = test_data("data/bitsandbytes-cases.safetensors", "NF4 against bitsandbytes' output");
  if (!path) return;
  const SafetensorsFile file = SafetensorsFile::open(*path);
  const auto bytes_of = [&](const std::string& name) {
    const auto span = file.bytes(file.get(name));
    return std::vector<uint8_t>(reinterpret_cast<const uint8_t*>(span.data()),
                                reinterpret_cast<const uint8_t*>(span.data()) + span.size());
  };
  const auto floats_of = [&](const std::string& name) {
    const auto span = file.as<float>(file.get(name));
    return std::vector<float>(span.begin(), span.end());
  };
  const std::vector<float> code = floats_of("nf4.code"), nested_code = floats_of("dq.code");
  for (size_t i = 0; i < 16; ++i) CHECK(nf4_code[i] == code[i]);
  for (size_t i = 0; i < 256; ++i) CHECK(same_bits(dynamic_code_signed[i], nested_code[i]));

  int compared = 0;
  for (const char* name : {"plain", "heavy_tail", "zeros_and_outliers", "odd", "tiny", "big_blocks"}) {
    for (const std::string dtype : {"float32", "bfloat16", "float16"}) {
      const std::string prefix = std::string("nf4.") + name + "." + dtype + ".";
      if (file.find(prefix + "input") == nullptr) continue;
      INFO(prefix);
      const TensorInfo& input = file.get(prefix + "input");
      const int64_t rows = input.shape[0], cols = input.shape[1], count = rows * cols;
      // Half and bfloat hold floats: what they hold is what is quantised.
      TypedArray weight(dtype == "bfloat16" ? DType::bf16 : DType::f32, count);
      if (dtype == "bfloat16") {
        const std::vector<uint8_t> bits = bytes_of(prefix + "input");
        std::memcpy(weight.bytes.data(), bits.data(), bits.size());
      } else {
        read_tensor(file, input, weight.ptr());
      }

      const Nf4Storage plain = nf4_quantize({}, weight.ptr(), rows, cols, false);
      CHECK(plain.packed == bytes_of(prefix + "packed"));
      CHECK(plain.absmax == floats_of(prefix + "absmax"));

      const float offset = floats_of(prefix + "dq.offset")[0];
      const Nf4Storage own = nf4_quantize({}, weight.ptr(), rows, cols, true);
      CHECK(own.packed == plain.packed);
      CHECK(std::fabs(own.offset - offset) <= std::nextafter(offset, INFINITY) - offset);
      Nf4Storage nested = plain;
      nf4_quantize_absmax(nested, offset);
      CHECK(nested.absmax_u8 == bytes_of(prefix + "dq.absmax_u8"));
      CHECK(nested.absmax2 == floats_of(prefix + "dq.absmax2"));

      for (const bool is_nested : {false, true}) {
        const Nf4Storage& storage = is_nested ? nested : plain;
        const std::string name_of_values = prefix + (is_nested ? "dq.dequant" : "dequant");
        if (dtype != "float16") {
          TypedArray back(weight.dtype, count);
          nf4_dequantize({}, back.ptr(), storage.view());
          const std::vector<uint8_t> expected = bytes_of(name_of_values);
          CHECK(std::memcmp(back.bytes.data(), expected.data(), expected.size()) == 0);
          continue;
        }
        // The engine writes no halves: its f32 must round to the recorded one (11 bits, subnormals of 2^-24).
        TypedArray back(DType::f32, count), expected(DType::f32, count);
        nf4_dequantize({}, back.ptr(), storage.view());
        read_tensor(file, file.get(name_of_values), expected.ptr());
        for (int64_t i = 0; i < count; ++i) {
          REQUIRE(std::fabs(back[i] - expected[i]) <= std::max(std::fabs(expected[i]) * 0x1p-11f, 0x1p-25f));
          REQUIRE(std::signbit(back[i]) == std::signbit(expected[i]));
        }
      }
      ++compared;
    }
  }
  CHECK(compared == 17);
}
