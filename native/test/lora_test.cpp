// LoRA's narrow products against their definition, with and without dropout.
#include "kernels/lora.h"

#include "kernels/dropout.h"
#include "typed_array.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// Any mask: the products do not ask where it comes from.
std::vector<uint32_t> random_bits(int64_t n, int64_t c, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint32_t> bits(static_cast<size_t>(n * kept_words(c)));
  for (uint32_t& word : bits) word = random() | random();
  return bits;
}

bool is_kept(const std::vector<uint32_t>& bits, int64_t r, int64_t ch, int64_t c) {
  return (bits[static_cast<size_t>(r * kept_words(c) + ch / 32)] >> kept_bit(ch) & 1) != 0;
}

struct Case {
  DType dtype;
  int64_t n, c, r;
  int parts;
  bool drops;
};

void check_close(float found, double expected, DType dtype, double magnitude) {
  const double relative = dtype == DType::f32 ? 1e-5 : 1.0 / 128;
  if (!(std::fabs(found - expected) <= relative * (magnitude + std::fabs(expected)) + 1e-6)) {
    FAIL("found " << found << ", expected " << expected);
  }
}

void check_case(const Case& at) {
  const auto [dtype, n, c, r, parts, drops] = at;
  INFO("n " << n << ", c " << c << ", r " << r << ", parts " << parts << (drops ? ", dropout" : ""));
  constexpr float scale = 0.75f;
  const TypedArray x(dtype, n * c, 1), dx0(dtype, n * c, 2);
  TypedArray scratch(dtype, n * c, 3), dx = dx0;
  std::vector<TypedArray> a, u, du;
  std::vector<std::vector<uint32_t>> bits;
  std::vector<std::vector<float>> da;
  for (int p = 0; p < parts; ++p) {
    const auto seed = static_cast<uint32_t>(10 + 10 * p);
    a.emplace_back(dtype, r * c, seed);
    u.emplace_back(dtype, n * r, seed + 1);
    du.emplace_back(dtype, n * r, seed + 2);
    bits.push_back(random_bits(n, c, seed));
    da.emplace_back(static_cast<size_t>(r * c), 0.5f);
  }
  std::vector<LoraPart> forward, backward;
  for (int p = 0; p < parts; ++p) {
    const auto i = static_cast<size_t>(p);
    LoraPart part;
    part.a = a[i].ptr();
    part.kept = drops ? bits[i].data() : nullptr;
    part.u = u[i].ptr();
    forward.push_back(part);
    part.u = du[i].ptr();
    part.da = da[i].data();
    backward.push_back(part);
  }
  lora_down_forward({}, forward.data(), parts, x.ptr(), c, scratch.ptr(), n, c, r, scale);
  lora_down_backward_weight({}, backward.data(), parts, x.ptr(), c, scratch.ptr(), n, c, r);
  lora_down_backward_input({}, backward.data(), parts, dx.ptr(), scratch.ptr(), n, c, r);

  const auto kept = [&](int p, int64_t row, int64_t ch) {
    return !drops || is_kept(bits[static_cast<size_t>(p)], row, ch, c);
  };
  for (int p = 0; p < parts; ++p) {
    const auto i = static_cast<size_t>(p);
    for (int64_t row = 0; row < n; ++row) {
      for (int64_t k = 0; k < r; ++k) {
        double sum = 0.0, size = 0.0;
        for (int64_t ch = 0; ch < c; ++ch) {
          const double term = kept(p, row, ch) ? double{x[row * c + ch]} * a[i][k * c + ch] : 0.0;
          sum += term, size += std::fabs(term);
        }
        check_close(u[i][row * r + k], scale * sum, dtype, dtype == DType::f32 ? size : 0.0);
      }
    }
    for (int64_t k = 0; k < r; ++k) {
      for (int64_t ch = 0; ch < c; ++ch) {
        double sum = 0.5, size = 0.0;
        for (int64_t row = 0; row < n; ++row) {
          const double term = kept(p, row, ch) ? double{du[i][row * r + k]} * x[row * c + ch] : 0.0;
          sum += term, size += std::fabs(term);
        }
        check_close(da[i][static_cast<size_t>(k * c + ch)], sum, DType::f32, size);
      }
    }
  }
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t ch = 0; ch < c; ++ch) {
      double sum = dx0[row * c + ch], size = std::fabs(sum);
      for (int p = 0; p < parts; ++p) {
        const auto i = static_cast<size_t>(p);
        double product = 0.0;
        for (int64_t k = 0; k < r; ++k) product += double{du[i][row * r + k]} * a[i][k * c + ch];
        if (kept(p, row, ch)) sum += product, size += std::fabs(product);
      }
      check_close(dx[row * c + ch], sum, dtype, size);
    }
  }
}

}  // namespace

TEST_CASE("narrow products of LoRA equal their definition") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const bool drops : {false, true}) {
      for (const int parts : {1, 2, 3}) {
        check_case({dtype, 1, 1, 1, parts, drops});
        check_case({dtype, 13, 40, 8, parts, drops});
        check_case({dtype, 33, 67, 5, parts, drops});
        check_case({dtype, 70, 96, 16, parts, drops});
      }
    }
  }
}
