// Philox against the known answers of its authors, every instruction set against it, and dropout's mask element by
// element against its definition.
#include "kernels/dropout.h"

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/philox_words.h"
#include "kernels/cpu/thread_pool.h"
#include "typed_array.h"

using namespace caravan;
using namespace caravan::test;
using cpu::Isa;

namespace {

struct Rows {
  std::vector<int32_t> conversation, position;

  explicit Rows(int64_t n, int32_t first_conversation = 0) {
    for (int64_t t = 0; t < n; ++t) {
      conversation.push_back(first_conversation + static_cast<int32_t>(t / 5));
      position.push_back(static_cast<int32_t>(t % 5));
    }
  }
  DropoutMask mask(float p, DropoutSite site = DropoutSite::down) const {
    return {p, 1234567u, 9u, 3u, site, conversation.data(), position.data()};
  }
};

/// The mask's bits, then the mask by them, scaled.
void drop(const Exec& exec, Ptr y, ConstPtr x, const DropoutMask& mask, int64_t n, int64_t c, bool accumulate) {
  std::vector<uint32_t> bits(static_cast<size_t>(n * kept_words(c)), 0xffffffffu);
  dropout_kept(exec, bits.data(), mask, n, c);
  dropout_apply(exec, y, x, bits.data(), 1.0f / (1.0f - mask.p), n, c, accumulate);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t ch = c; ch < 32 * kept_words(c); ++ch) {
      REQUIRE((bits[static_cast<size_t>(r * kept_words(c) + ch / 32)] >> kept_bit(ch) & 1) == 0);
    }
  }
}

bool kept(const DropoutMask& mask, int64_t row, int64_t channel) {
  const Philox4 words = philox(mask.seed, mask.step, static_cast<uint32_t>(mask.conversation[row]),
                               static_cast<uint32_t>(mask.position[row]),
                               mask.layer * 16 + static_cast<uint32_t>(mask.site), static_cast<uint32_t>(channel / 4));
  return words.word[channel % 4] >= static_cast<uint32_t>(std::floor(static_cast<double>(mask.p) * 4294967296.0));
}

/// 1 where kept, 0 where dropped, of n rows of c channels.
std::vector<float> pattern(const DropoutMask& mask, int64_t n, int64_t c) {
  std::vector<float> ones(static_cast<size_t>(n * c), 1.0f), out(ones.size());
  drop({}, out.data(), ones.data(), mask, n, c, false);
  for (float& value : out) value = value != 0.0f ? 1.0f : 0.0f;
  return out;
}

}  // namespace

TEST_CASE("philox4x32-10 gives its authors' known answers") {
  struct Known {
    uint32_t key[2], counter[4], out[4];
  };
  const Known known[] = {
      {{0, 0}, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0xa4093822, 0x299f31d0},
       {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Known& k : known) {
    const Philox4 out = philox(k.key[0], k.key[1], k.counter[0], k.counter[1], k.counter[2], k.counter[3]);
    for (int i = 0; i < 4; ++i) CHECK(out.word[i] == k.out[i]);
  }
  CHECK(uniform01(0) == 0.0f);
  CHECK(uniform01(0xffffffffu) < 1.0f);
  CHECK(uniform01(0x80000000u) == 0.5f);
}

TEST_CASE("streams of words equal philox one by one, on every instruction set and for every remainder") {
  const cpu::PhiloxRow row{0xdeadbeef, 17, 4, 2047, 0x12345};
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512bf16}) {
    cpu::limit_cpu_isa(isa);
    for (const int64_t groups : {0, 1, 7, 8, 9, 16, 31, 257}) {
      for (const uint32_t first : {0u, 5u, 0xfffffffcu}) {  // the last wraps around
        std::vector<uint32_t> words(static_cast<size_t>(4 * groups) + 1, 77u);
        cpu::philox_words(words.data(), row, first, groups);
        for (int64_t g = 0; g < groups; ++g) {
          const Philox4 out = philox(row.key0, row.key1, row.c0, row.c1, row.c2, first + static_cast<uint32_t>(g));
          for (int i = 0; i < 4; ++i) REQUIRE(words[static_cast<size_t>(4 * g + i)] == out.word[i]);
        }
        REQUIRE(words.back() == 77u);
      }
    }
  }
  cpu::limit_cpu_isa(Isa::avx512bf16);
}

TEST_CASE("every element is kept and scaled, or dropped, as the definition says") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512bf16}) {
    cpu::limit_cpu_isa(isa);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const float p : {0.0f, 0.1f, 0.5f, 0.97f}) {
        for (const int64_t n : {1, 7, 23}) {
          for (const int64_t c : {1, 3, 4, 33, 1024, 1027}) {
            const Rows rows(n, 2);
            const DropoutMask mask = rows.mask(p);
            const TypedArray x(dtype, n * c, 1), y0(dtype, n * c, 2);
            for (const bool accumulate : {false, true}) {
              TypedArray y = y0;
              drop(exec, y.ptr(), x.ptr(), mask, n, c, accumulate);
              const float scale = 1.0f / (1.0f - p);
              for (int64_t i = 0; i < n * c; ++i) {
                const float masked = p == 0.0f ? x[i] : kept(mask, i / c, i % c) ? x[i] * scale : 0.0f;
                if (y[i] != cpu::round_to(dtype, accumulate ? y0[i] + masked : masked)) {
                  FAIL("element " << i << " of " << n << " x " << c << ", p " << p << ": " << y[i]);
                }
              }
            }
          }
        }
      }
    }
  }
  cpu::limit_cpu_isa(Isa::avx512bf16);
}

TEST_CASE("a dropped NaN is gone and a kept one stays") {
  const Rows rows(1);
  const DropoutMask mask = rows.mask(0.5f);
  std::vector<float> x(64, NAN), y(64);
  drop({}, y.data(), x.data(), mask, 1, 64, false);
  int dropped = 0;
  for (int64_t i = 0; i < 64; ++i) {
    CHECK(std::isnan(y[static_cast<size_t>(i)]) == kept(mask, 0, i));
    dropped += !kept(mask, 0, i);
  }
  CHECK(dropped > 10);
}

TEST_CASE("the mask moves with seed, step, layer, site, conversation and position, and with nothing else") {
  const int64_t n = 20, c = 64;
  const Rows rows(n);
  const DropoutMask mask = rows.mask(0.5f);
  const std::vector<float> base = pattern(mask, n, c);
  const auto differs = [&](DropoutMask other) {
    const std::vector<float> there = pattern(other, n, c);
    int64_t different = 0;
    for (size_t i = 0; i < base.size(); ++i) different += base[i] != there[i];
    return different > n * c * 4 / 10;  // independent masks at p = 0.5 differ in half of their elements
  };
  DropoutMask other = mask;
  other.seed ^= 1;
  CHECK(differs(other));
  other = mask;
  other.step += 1;
  CHECK(differs(other));
  other = mask;
  other.layer += 1;
  CHECK(differs(other));
  for (uint32_t site = 0; site < 8; ++site) {
    other = mask;
    other.site = static_cast<DropoutSite>(site);
    CHECK(differs(other) == (other.site != mask.site));
  }
  const Rows others(n, 50);
  other = mask;
  other.conversation = others.conversation.data();
  CHECK(differs(other));
  std::vector<int32_t> later = rows.position;
  for (int32_t& position : later) position += 5;
  other = mask;
  other.position = later.data();
  CHECK(differs(other));

  // Alone, or after other rows: a row keeps its mask.
  for (int64_t t = 0; t < n; ++t) {
    DropoutMask one = mask;
    one.conversation += t;
    one.position += t;
    const std::vector<float> row = pattern(one, 1, c);
    CHECK(std::equal(row.begin(), row.end(), base.begin() + t * c));
  }
}

TEST_CASE("the share that is kept is 1 - p within five standard deviations") {
  const int64_t n = 200, c = 1000;
  const Rows rows(n);
  for (const float p : {0.1f, 0.5f, 0.9f}) {
    double sum = 0.0;
    for (const float value : pattern(rows.mask(p), n, c)) sum += value;
    const double count = static_cast<double>(n * c);
    CHECK(std::fabs(sum / count - (1.0 - p)) < 5.0 * std::sqrt(p * (1.0 - p) / count));
  }
}
