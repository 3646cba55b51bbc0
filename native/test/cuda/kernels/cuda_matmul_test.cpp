// Products on the GPU against their CPU twins: every element, each of the ways they are computed (cuBLASLt, our own).
#include "kernels/matmul.h"

#include <cstring>
#include <limits>

#include "cuda/cuda_test.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/error.h"

using namespace caravan;
using namespace caravan::test;

namespace {

enum class Kind { f32, bf16, nf4, nf4_nested };

std::string name_of(Kind kind) {
  const char* const names[] = {"f32", "bf16", "NF4", "NF4 double quantised"};
  return names[static_cast<int>(kind)];
}

template <typename T>
std::string name_of() {
  return sizeof(T) == 4 ? "f32" : "bf16";
}

/// A weight of one kind on both devices; NF4 of random codes and scales, so that every nibble and code occurs.
class TwinWeight {
 public:
  TwinWeight(Kind kind, int64_t rows, int64_t cols, uint32_t seed) : rows_(rows), cols_(cols) {
    const int64_t count = rows * cols, blocks = (count + nf4_block - 1) / nf4_block;
    if (kind == Kind::f32) fill(f32_, count, seed);
    if (kind == Kind::bf16) fill(bf16_, count, seed);
    if (f32_ || bf16_) return;
    std::mt19937 random(seed);
    bytes(packed_, (count + 1) / 2, random);
    host_nf4_.packed = packed_->host();
    device_nf4_.packed = packed_->device();
    if (kind == Kind::nf4) {
      scales(absmax_, blocks, random);
      host_nf4_.absmax = absmax_->host();
      device_nf4_.absmax = absmax_->device();
    } else {
      bytes(absmax_u8_, blocks, random);
      scales(absmax2_, (blocks + nf4_nested_block - 1) / nf4_nested_block, random);
      host_nf4_.absmax_u8 = absmax_u8_->host();
      device_nf4_.absmax_u8 = absmax_u8_->device();
      host_nf4_.absmax2 = absmax2_->host();
      device_nf4_.absmax2 = absmax2_->device();
      host_nf4_.offset = device_nf4_.offset = 0.6f;
    }
    host_nf4_.rows = device_nf4_.rows = rows;
    host_nf4_.cols = device_nf4_.cols = cols;
  }

  Weight host() {
    return weight(host_nf4_, [](auto& array) { return array.host(); });
  }
  Weight device() {
    return weight(device_nf4_, [](auto& array) { return array.device(); });
  }

 private:
  template <typename T>
  void fill(std::unique_ptr<TwinArray<T>>& array, int64_t count, uint32_t seed) {
    array = std::make_unique<TwinArray<T>>(count);
    array->fill(seed);
  }
  static void bytes(std::unique_ptr<TwinArray<uint8_t>>& array, int64_t count, std::mt19937& random) {
    array = std::make_unique<TwinArray<uint8_t>>(count);
    for (int64_t i = 0; i < count; ++i) (*array)[i] = static_cast<uint8_t>(random());
    array->to_device();
  }
  static void scales(std::unique_ptr<TwinArray<float>>& array, int64_t count, std::mt19937& random) {
    std::uniform_real_distribution<float> scale(0.25f, 1.0f);
    array = std::make_unique<TwinArray<float>>(count);
    for (int64_t i = 0; i < count; ++i) (*array)[i] = scale(random);
    array->to_device();
  }
  template <typename F>
  Weight weight(const Nf4View& nf4, F side) {
    if (f32_) return Weight::of(side(*f32_), rows_, cols_);
    if (bf16_) return Weight::of(side(*bf16_), rows_, cols_);
    return Weight::of(nf4);
  }

  int64_t rows_, cols_;
  std::unique_ptr<TwinArray<float>> f32_, absmax_, absmax2_;
  std::unique_ptr<TwinArray<bf16>> bf16_;
  std::unique_ptr<TwinArray<uint8_t>> packed_, absmax_u8_;
  Nf4View host_nf4_, device_nf4_;
};

/// The sums differ by their order, then the result is rounded once: a neighbour in bf16 is up to 2^-7 away.
template <typename Out>
double tolerance(int64_t k) {
  return sizeof(Out) == 2 ? 8e-3 : 1e-6 * (8.0 + std::sqrt(static_cast<double>(k)));
}

struct Case {
  int64_t n, out, in;
  float scale;
  bool accumulate, bias;

  std::string text() const {
    return std::to_string(n) + " x " + std::to_string(in) + " -> " + std::to_string(out) + ", scale " +
           std::to_string(scale) + (accumulate ? ", accumulate" : "") + (bias ? ", bias" : "");
  }
};

const Case cases[] = {
    {1, 1, 1, 1.0f, false, false},      {1, 64, 64, 1.0f, false, true},      {2, 96, 320, 0.25f, true, true},
    {3, 7, 5, 0.5f, true, true},        {5, 130, 257, 1.0f, false, true},    {8, 64, 4096, 2.0f, true, false},
    {8, 300, 704, 1.0f, false, false},  {9, 72, 128, 1.0f, false, false},    {17, 33, 1, 1.0f, true, false},
    {64, 8, 200, 1.0f, false, false},   {129, 65, 66, 1.5f, false, true},    {130, 257, 1000, 1.0f, true, false},
    {200, 128, 512, 1.0f, true, false}, {257, 384, 192, 0.125f, true, true}, {384, 256, 1024, 1.0f, false, false},
};

/// Runs `body` by cuBLASLt, where it is there, and by our own kernels, with those of Hopper and without.
template <typename F>
void each_way(F body) {
  cuda::Context& context = *cuda_exec().cuda;
  if (cuda::cublaslt_library().found()) body(std::string(", cuBLASLt"));
  context.use_cublaslt(false);
  if (context.compute_capability() == 90) body(std::string(", own"));
  context.use_wgmma(false);
  body(std::string(", own for any GPU"));
  context.use_wgmma(true);
  context.use_cublaslt(true);
}

/// What `call` writes into a copy of y, by both devices. Twice on the GPU: the bits are the same.
template <typename T, typename F>
void compare(int64_t count, bool preset, double relative, const std::string& what, F call) {
  TwinArray<T> y(count), again(count);
  if (preset) {
    y.fill(77);
    again.fill(77);
  }
  call(cpu_exec(), y.host(), true);
  call(cuda_exec(), y.device(), false);
  call(cuda_exec(), again.device(), false);
  check_equal(y, relative, what);
  const std::vector<T> first = y.from_device(), second = again.from_device();
  INFO(what);
  CHECK(std::memcmp(first.data(), second.data(), first.size() * sizeof(T)) == 0);
}

template <typename X, typename Y>
void compare_linear(Kind kind, const Case& c) {
  TwinArray<X> x(c.n * c.in), dy(c.n * c.out);
  TwinArray<float> bias(c.out);
  TwinWeight w(kind, c.out, c.in, 3);
  x.fill(1);
  dy.fill(2);
  bias.fill(4);
  each_way([&](const std::string& way) {
    const std::string what = c.text() + ", " + name_of<X>() + " to " + name_of<Y>() + ", W " + name_of(kind) + way;
    compare<Y>(c.n * c.out, c.accumulate, tolerance<Y>(c.in), what, [&](const Exec& exec, Y* y, bool host) {
      linear_forward(exec, y, host ? x.host() : x.device(), host ? w.host() : w.device(),
                     !c.bias ? nullptr : (host ? bias.host() : bias.device()), c.n, c.scale, c.accumulate);
    });
    compare<Y>(c.n * c.in, c.accumulate, tolerance<Y>(c.out), "backward: " + what,
               [&](const Exec& exec, Y* dx, bool host) {
                 linear_backward_input(exec, dx, host ? dy.host() : dy.device(), host ? w.host() : w.device(), c.n,
                                       c.scale, c.accumulate);
               });
  });
}

template <typename Dy, typename X, typename Dw>
void compare_weight_gradient(const Case& c) {
  TwinArray<Dy> dy(c.n * c.out);
  TwinArray<X> x(c.n * c.in);
  dy.fill(5);
  x.fill(6);
  each_way([&](const std::string& way) {
    compare<Dw>(c.out * c.in, true, tolerance<Dw>(c.n),
                "dw: " + c.text() + ", " + name_of<Dy>() + " x " + name_of<X>() + " to " + name_of<Dw>() + way,
                [&](const Exec& exec, Dw* dw, bool host) {
                  linear_backward_weight(exec, dw, host ? dy.host() : dy.device(), host ? x.host() : x.device(), c.n,
                                         c.out, c.in, c.scale);
                });
  });
}

struct GroupedCase {
  std::vector<int32_t> offsets;
  int64_t n, out, in;
  float scale;
  bool accumulate;
};

/// The rows after the last group belong to nobody: they hold NaN on the way in and stay as they are on the way out.
template <typename T>
void poison_after(TwinArray<T>& x, int64_t rows, int64_t width) {
  for (int64_t i = rows * width; i < x.count(); ++i) x[i] = T(std::numeric_limits<float>::quiet_NaN());
  x.to_device();
}

template <typename X, typename W, typename Dw>
void compare_grouped(const GroupedCase& c) {
  const auto groups = static_cast<int64_t>(c.offsets.size()) - 1;
  TwinArray<int32_t> offsets(groups + 1);
  for (int64_t g = 0; g <= groups; ++g) offsets[g] = c.offsets[static_cast<size_t>(g)];
  offsets.to_device();
  TwinArray<X> x(c.n * c.in), dy(c.n * c.out);
  TwinArray<W> w(groups * c.out * c.in);
  poison_after(x.fill(1), c.offsets.back(), c.in);
  poison_after(dy.fill(2), c.offsets.back(), c.out);
  w.fill(3);
  const std::string what = std::to_string(groups) + " groups, " + std::to_string(c.n) + " x " + std::to_string(c.in) +
                           " -> " + std::to_string(c.out) + ", " + name_of<X>() + ", W " + name_of<W>() +
                           (c.accumulate ? ", accumulate" : "");
  // Only where every row belongs to a group is every row written.
  const bool preset = c.accumulate || c.offsets.back() < c.n;
  each_way([&](const std::string& way) {
    compare<X>(c.n * c.out, preset, tolerance<X>(c.in), "grouped forward: " + what + way,
               [&](const Exec& exec, X* y, bool host) {
                 grouped_linear_forward(exec, y, host ? x.host() : x.device(), host ? w.host() : w.device(),
                                        host ? offsets.host() : offsets.device(), groups, c.n, c.out, c.in, c.scale,
                                        c.accumulate);
               });
    compare<X>(c.n * c.in, preset, tolerance<X>(c.out), "grouped backward: " + what + way,
               [&](const Exec& exec, X* dx, bool host) {
                 grouped_linear_backward_input(exec, dx, host ? dy.host() : dy.device(), host ? w.host() : w.device(),
                                               host ? offsets.host() : offsets.device(), groups, c.n, c.out, c.in,
                                               c.scale, c.accumulate);
               });
    compare<Dw>(groups * c.out * c.in, true, tolerance<Dw>(c.n), "grouped dw to " + name_of<Dw>() + ": " + what + way,
                [&](const Exec& exec, Dw* dw, bool host) {
                  grouped_linear_backward_weight(exec, dw, host ? dy.host() : dy.device(), host ? x.host() : x.device(),
                                                 host ? offsets.host() : offsets.device(), groups, c.n, c.out, c.in,
                                                 c.scale);
                });
  });
}

}  // namespace

TEST_CASE("linear layers on the GPU equal their CPU twins") {
  MESSAGE("cuBLASLt: " << (cuda::cublaslt_library().found() ? cuda::cublaslt_library().path
                                                            : cuda::cublaslt_library().missing));
  for (const Case& c : cases) {
    for (const Kind kind : {Kind::f32, Kind::bf16, Kind::nf4, Kind::nf4_nested}) {
      compare_linear<float, float>(kind, c);
      compare_linear<bf16, bf16>(kind, c);
      compare_linear<bf16, float>(kind, c);
    }
    compare_linear<float, bf16>(Kind::f32, c);
  }
}

TEST_CASE("weight gradients on the GPU equal their CPU twins") {
  for (const Case& c : cases) {
    compare_weight_gradient<float, float, float>(c);
    compare_weight_gradient<bf16, bf16, float>(c);
    compare_weight_gradient<bf16, bf16, bf16>(c);
    compare_weight_gradient<float, bf16, float>(c);
    compare_weight_gradient<bf16, float, bf16>(c);
    compare_weight_gradient<float, float, bf16>(c);
  }
  compare_weight_gradient<bf16, bf16, float>({5000, 64, 512, 1.0f, true, false});
  compare_weight_gradient<float, float, float>({5000, 8, 512, 1.0f, true, false});
}

TEST_CASE("bias gradients on the GPU equal their CPU twin") {
  for (const int64_t n : {0, 1, 3, 255, 256, 257, 3000}) {
    for (const int64_t out : {1, 31, 32, 33, 200}) {
      TwinArray<float> dy(n * out);
      TwinArray<bf16> dy_bf16(n * out);
      dy.fill(8);
      dy_bf16.fill(8);
      const std::string what = "dbias: " + std::to_string(n) + " x " + std::to_string(out);
      compare<float>(out, true, 1e-5, what, [&](const Exec& exec, float* dbias, bool host) {
        bias_backward(exec, dbias, host ? dy.host() : dy.device(), n, out);
      });
      compare<float>(out, true, 1e-5, what + ", bf16", [&](const Exec& exec, float* dbias, bool host) {
        bias_backward(exec, dbias, host ? dy_bf16.host() : dy_bf16.device(), n, out);
      });
    }
  }
}

TEST_CASE("grouped layers on the GPU equal their CPU twins") {
  const GroupedCase grouped[] = {
      {{0, 1}, 1, 1, 1, 1.0f, false},
      {{0, 0, 3, 3, 5, 5}, 5, 33, 17, 0.5f, true},
      {{0, 2, 8}, 8, 64, 256, 1.0f, false},
      {{0, 0, 0, 1, 1, 2, 2, 2, 4}, 16, 512, 320, 1.0f, false},
      {{0, 20, 20, 33}, 33, 96, 200, 1.0f, true},
      {{0, 0, 0}, 40, 64, 64, 1.0f, false},
      {{0, 128, 256}, 256, 128, 128, 1.0f, false},
      {{0, 0, 700, 700, 701, 1000, 1000, 1003, 1024}, 1024, 256, 512, 1.0f, true},
      {{0, 129, 258, 260, 600}, 640, 130, 70, 2.0f, false},
      {{0, 129, 258, 260, 600}, 640, 136, 72, 2.0f, true},
  };
  for (const GroupedCase& c : grouped) {
    compare_grouped<float, float, float>(c);
    compare_grouped<bf16, bf16, float>(c);
    compare_grouped<bf16, bf16, bf16>(c);
    compare_grouped<bf16, float, float>(c);
    compare_grouped<float, bf16, bf16>(c);
  }
}

TEST_CASE("a row's bits do not depend on the other rows where our own kernels compute it") {
  cuda_exec().cuda->use_cublaslt(false);
  const int64_t n = 300, out = 200, in = 1024;
  TwinArray<bf16> x(n * in), w(out * in), all(n * out), few(n * out);
  x.fill(1);
  w.fill(2);
  const Weight weight = Weight::of(w.device(), out, in);
  for (const auto& [whole, part] : {std::pair<int64_t, int64_t>{300, 37}, {8, 1}, {8, 5}}) {
    linear_forward(cuda_exec(), all.device(), x.device(), weight, nullptr, whole, 1.0f, false);
    linear_forward(cuda_exec(), few.device(), x.device(), weight, nullptr, part, 1.0f, false);
    const std::vector<bf16> a = all.from_device(), b = few.from_device();
    CHECK(std::memcmp(a.data(), b.data(), static_cast<size_t>(part * out) * sizeof(bf16)) == 0);
  }
  cuda_exec().cuda->use_cublaslt(true);
}

TEST_CASE("a layer and its LoRA in one product on the GPU equal the CPU twin") {
  struct Sizes {
    int64_t n, out, in, r, u_at;
  };
  const auto compare_one = [](auto zero, Kind kind, const Sizes& s, bool with_bias) {
    using X = decltype(zero);
    const int64_t row = s.u_at + s.r + 8;
    TwinWeight w(kind, s.out, s.in, 1);
    TwinArray<X> x(s.n * row);
    TwinArray<float> b(s.out * s.r), bias(s.out);
    x.fill(2), b.fill(3), bias.fill(4);
    const std::string what = std::string("widened ") + name_of(kind) + " " + std::to_string(s.n) + " x " +
                             std::to_string(s.in) + " + " + std::to_string(s.r) + " at " + std::to_string(s.u_at) +
                             " -> " + std::to_string(s.out) + (with_bias ? ", bias" : "");
    compare<X>(s.n * s.out, false, tolerance<X>(s.in), what, [&](const Exec& exec, X* y, bool host) {
      const float* const added = with_bias ? (host ? bias.host() : bias.device()) : nullptr;
      linear_lora_forward(exec, y, host ? x.host() : x.device(), row, host ? w.host() : w.device(), added,
                          host ? b.host() : b.device(), 0.25f, s.u_at, s.r, s.n);
    });
  };
  for (const Kind kind : {Kind::f32, Kind::bf16, Kind::nf4, Kind::nf4_nested}) {
    for (const Sizes& s : {Sizes{1, 8, 64, 8, 64}, Sizes{33, 40, 72, 16, 104}, Sizes{130, 96, 200, 64, 328}}) {
      for (const bool with_bias : {false, true}) {
        compare_one(bf16(0.0f), kind, s, with_bias);
        if (kind != Kind::bf16) compare_one(0.0f, kind, s, with_bias);
      }
    }
  }
}
