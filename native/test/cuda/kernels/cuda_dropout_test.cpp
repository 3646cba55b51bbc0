// Dropout on the GPU against the CPU twin: the same elements dropped and the same bits left, for every width, site and
// alignment.
#include "cuda/cuda_test.h"
#include "kernels/dropout.h"

using namespace caravan;
using namespace caravan::test;

namespace {

template <typename T>
void compare(int64_t n, int64_t c, float p, bool accumulate, int64_t shift, DropoutSite site, uint32_t layer) {
  TwinArray<T> x(n * c + shift), y(n * c + shift);
  TwinArray<int32_t> conversation(n), position(n);
  x.fill(1);
  y.fill(2);
  for (int64_t i = 0; i < n; ++i) {
    conversation[i] = static_cast<int32_t>(i / 5 * 3);
    position[i] = static_cast<int32_t>(i % 5 + 1000 * (i % 2));
  }
  conversation.to_device();
  position.to_device();
  DropoutMask mask;
  mask.p = p;
  mask.seed = 0xfedcba98u;
  mask.step = 17;
  mask.layer = layer;
  mask.site = site;
  mask.conversation = conversation.host();
  mask.position = position.host();
  TwinArray<uint32_t> kept(n * kept_words(c));
  const float scale = 1.0f / (1.0f - p);
  dropout_kept(cpu_exec(), kept.host(), mask, n, c);
  dropout_apply(cpu_exec(), Ptr(y.host()).at(shift), Ptr(x.host()).at(shift), kept.host(), scale, n, c, accumulate);
  mask.conversation = conversation.device();
  mask.position = position.device();
  dropout_kept(cuda_exec(), kept.device(), mask, n, c);
  dropout_apply(cuda_exec(), Ptr(y.device()).at(shift), Ptr(x.device()).at(shift), kept.device(), scale, n, c,
                accumulate);
  check_equal(kept, 0.0, "mask of " + std::to_string(n) + " x " + std::to_string(c));
  check_equal(y, 0.0,
              std::to_string(n) + " x " + std::to_string(c) + ", p " + std::to_string(p) +
                  (accumulate ? ", added" : "") + (shift == 0 ? "" : ", unaligned"));
}

template <typename T>
void compare_shapes() {
  for (const bool accumulate : {false, true}) {
    for (const float p : {0.0f, 0.05f, 0.1f, 0.5f, 0.999f}) {
      for (const int64_t c : {1, 3, 8, 21, 40, 1024, 1032, 2056}) {
        compare<T>(11, c, p, accumulate, 0, DropoutSite::adapter, 31);
      }
      compare<T>(0, 8, p, accumulate, 0, DropoutSite::q, 0);
      compare<T>(300, 64, p, accumulate, 0, DropoutSite::q, 0);
      compare<T>(7, 64, p, accumulate, 1, DropoutSite::down, 79);
    }
  }
}

}  // namespace

TEST_CASE("dropout on the GPU has the CPU's masks and bits") {
  compare_shapes<float>();
  compare_shapes<bf16>();
}
