// Speed of the CPU's products, attention and element-wise operations at the shapes of SmolLM2-135M: best of several
// runs, in GFLOP/s, GB/s of weights, or ns an element.
//   kernels_bench [threads]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"

using namespace caravan;

namespace {

double best_seconds(const std::function<void()>& body) {
  using clock = std::chrono::steady_clock;
  double best = 1e9;
  const auto start = clock::now();
  for (int run = 0; run < 200 && (run < 3 || clock::now() - start < std::chrono::milliseconds(700)); ++run) {
    const auto begin = clock::now();
    body();
    best = std::min(best, std::chrono::duration<double>(clock::now() - begin).count());
  }
  return best;
}

struct Array {
  DType dtype;
  std::vector<float> memory;

  Array(DType type, int64_t count) : dtype(type), memory(static_cast<size_t>(count)) {
    for (int64_t i = 0; i < count; ++i)
      cpu::store_element(ptr(), i, static_cast<float>(i * 7919 % 1000) / 500.0f - 1.0f);
  }
  Ptr ptr() { return {memory.data(), dtype}; }
};

const char* name(DType dtype) { return dtype == DType::f32 ? "f32 " : "bf16"; }

void bench_products(const Exec& exec, DType dtype, int64_t n, int64_t out, int64_t in) {
  Array x(dtype, n * in), y(dtype, n * out), w(dtype, out * in), dw(DType::f32, out * in);
  const Nf4Storage nf4 = nf4_quantize(exec, w.ptr(), out, in, true);
  const Nf4View view = nf4.view();
  const double flops = 2e-9 * static_cast<double>(n * out * in);
  const Weight dense = Weight::of(w.ptr(), out, in), packed = Weight::of(view);
  const double forward = best_seconds([&] { linear_forward(exec, y.ptr(), x.ptr(), dense, nullptr, n, 1.0f, false); });
  const double quant = best_seconds([&] { linear_forward(exec, y.ptr(), x.ptr(), packed, nullptr, n, 1.0f, false); });
  const double input = best_seconds([&] { linear_backward_input(exec, x.ptr(), y.ptr(), dense, n, 1.0f, false); });
  const double input_quant =
      best_seconds([&] { linear_backward_input(exec, x.ptr(), y.ptr(), packed, n, 1.0f, false); });
  const double weight =
      best_seconds([&] { linear_backward_weight(exec, dw.ptr(), y.ptr(), x.ptr(), n, out, in, 0.0f); });
  std::printf("%s N %5ld O %5ld C %5ld GFLOP/s: forward %6.1f nf4 %6.1f | input %6.1f nf4 %6.1f | weight %6.1f\n",
              name(dtype), static_cast<long>(n), static_cast<long>(out), static_cast<long>(in), flops / forward,
              flops / quant, flops / input, flops / input_quant, flops / weight);
}

void bench_decode(const Exec& exec, int64_t n, int64_t out, int64_t in) {
  Array x(DType::f32, n * in), y(DType::f32, n * out), w32(DType::f32, out * in), w16(DType::bf16, out * in);
  const Nf4Storage nf4 = nf4_quantize(exec, w32.ptr(), out, in, true);
  const Nf4View view = nf4.view();
  const auto seconds = [&](const Weight& w) {
    return best_seconds([&] { linear_forward(exec, y.ptr(), x.ptr(), w, nullptr, n, 1.0f, false); });
  };
  const double f32 = seconds(Weight::of(w32.ptr(), out, in)), b16 = seconds(Weight::of(w16.ptr(), out, in)),
               q4 = seconds(Weight::of(view));
  const double weights = 1e-9 * static_cast<double>(out * in);
  std::printf(
      "decode N %ld O %5ld C %5ld, us and 10^9 weights/s: f32 %7.1f %5.2f | bf16 %7.1f %5.2f | nf4 %7.1f %5.2f\n",
      static_cast<long>(n), static_cast<long>(out), static_cast<long>(in), f32 * 1e6, weights / f32, b16 * 1e6,
      weights / b16, q4 * 1e6, weights / q4);
}

void bench_attention(const Exec& exec, DType dtype, int64_t sequences, int64_t length) {
  const AttentionShape shape{9, 3, 64, 0, 0.125f};
  const int64_t n = sequences * length;
  Array q(dtype, n * 576), k(dtype, n * 192), v(dtype, n * 192), out(dtype, n * 576), dout(dtype, n * 576),
      dq(dtype, n * 576), dk(dtype, n * 192), dv(dtype, n * 192), lse(DType::f32, n * 9);
  std::vector<int32_t> cuts;
  for (int64_t s = 0; s <= sequences; ++s) cuts.push_back(static_cast<int32_t>(s * length));
  float* l = lse.ptr().as<float>();
  const double forward = best_seconds(
      [&] { attention_forward(exec, out.ptr(), l, q.ptr(), k.ptr(), v.ptr(), cuts.data(), sequences, n, shape); });
  const double backward = best_seconds([&] {
    attention_backward(exec, dq.ptr(), dk.ptr(), dv.ptr(), dout.ptr(), q.ptr(), k.ptr(), v.ptr(), out.ptr(), l,
                       cuts.data(), sequences, n, shape);
  });
  const double flops = 2e-9 * static_cast<double>(sequences * length * length / 2 * 9 * 64);
  std::printf("%s attention %ld x %4ld: forward %7.2f ms %6.1f GFLOP/s | backward %7.2f ms %6.1f GFLOP/s\n",
              name(dtype), static_cast<long>(sequences), static_cast<long>(length), forward * 1e3, 2 * flops / forward,
              backward * 1e3, 5 * flops / backward);
}

void bench_elements(const Exec& exec, DType dtype) {
  constexpr int64_t n = 2048, c = 576, f = 1536;
  Array a(dtype, n * f), b(dtype, n * f), d(dtype, n * f), weight(DType::f32, c), rstd(DType::f32, n),
      dw(DType::f32, c);
  const auto report = [&](const char* what, int64_t count, const std::function<void()>& body) {
    std::printf("%s %-18s %6.3f ns an element\n", name(dtype), what,
                best_seconds(body) * 1e9 / static_cast<double>(count));
  };
  float* r = rstd.ptr().as<float>();
  report("rmsnorm_forward", n * c, [&] { rmsnorm_forward(exec, a.ptr(), r, b.ptr(), weight.ptr(), n, c, 1e-5f); });
  report("rmsnorm_backward", n * c, [&] {
    rmsnorm_backward(exec, d.ptr(), dw.ptr().as<float>(), a.ptr(), b.ptr(), r, weight.ptr(), n, c, false);
  });
  report("swiglu_forward", n * f, [&] { swiglu_forward(exec, d.ptr(), a.ptr(), b.ptr(), n * f); });
  report("swiglu_backward", n * f, [&] { swiglu_backward(exec, a.ptr(), b.ptr(), d.ptr(), a.ptr(), b.ptr(), n * f); });
  report("gelu_forward", n * f, [&] { gelu_forward(exec, d.ptr(), a.ptr(), n * f); });
  report("gelu_backward", n * f, [&] { gelu_backward(exec, d.ptr(), a.ptr(), b.ptr(), n * f); });
  report("add_inplace", n * f, [&] { add_inplace(exec, d.ptr(), a.ptr(), n * f); });
}

}  // namespace

int main(int argc, char** argv) {
  const auto pool = make_thread_pool(argc > 1 ? std::atoi(argv[1]) : 0);
  Exec exec;
  exec.pool = pool.get();
  std::printf("%s, %d threads\n", cpu::isa_name(cpu::cpu_isa()), pool->threads());
  for (const DType dtype : {DType::f32, DType::bf16}) {
    bench_products(exec, dtype, 2048, 1536, 576);
    bench_products(exec, dtype, 2048, 576, 1536);
    bench_products(exec, dtype, 2048, 576, 576);
    bench_products(exec, dtype, 2048, 192, 576);
    bench_products(exec, dtype, 2048, 64, 576);
    bench_products(exec, dtype, 2048, 1536, 64);
    bench_products(exec, dtype, 512, 4096, 576);
    bench_products(exec, dtype, 32, 1536, 576);
  }
  for (const int64_t n : {1, 2, 4, 8}) bench_decode(exec, n, 1536, 576);
  bench_decode(exec, 1, 576, 1536);
  bench_decode(exec, 1, 49152, 576);
  bench_decode(exec, 9, 1536, 576);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    bench_attention(exec, dtype, 4, 512);
    bench_attention(exec, dtype, 1, 2048);
    bench_elements(exec, dtype);
  }
  return 0;
}
