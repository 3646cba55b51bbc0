// Times of the products of matmul.h on the GPU at Llama-2-7B's shapes, each beside what the same GPU reaches on a large
// bf16 product and a large copy, measured in the same process. Random data, buffers rotated beyond the L2 cache, launches
// in a CUDA graph, median of replays.
//   cuda_matmul_bench [filter]     only rows whose name contains the filter
//   cuda_matmul_bench --json       one JSON object a row
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda_context.h"
#include "kernels/matmul.h"
#include "kernels/transfer.h"

using namespace caravan;

namespace {

constexpr size_t beyond_l2 = size_t{160} << 20;

std::shared_ptr<cuda::Context> context;
Exec exec;
std::string filter;
bool json = false;
double ceiling_tflops = 0.0, ceiling_gbs = 0.0;

/// Device memory of random values in (-1, 1), freed with the row that used it.
class Buffers {
 public:
  ~Buffers() {
    for (void* memory : memory_) cuda_free(memory);
  }
  template <typename T>
  T* random(int64_t count) {
    static const std::vector<T> pattern = random_pattern<T>();
    T* const data = static_cast<T*>(take(static_cast<size_t>(count) * sizeof(T)));
    for (int64_t at = 0; at < count; at += static_cast<int64_t>(pattern.size())) {
      upload(exec, data + at, pattern.data(), sizeof(T) * std::min(pattern.size(), static_cast<size_t>(count - at)));
    }
    return data;
  }
  void* take(size_t bytes) {
    memory_.push_back(cuda_allocate(bytes));
    return memory_.back();
  }
  int32_t* offsets(const std::vector<int32_t>& values) {
    auto* const data = static_cast<int32_t*>(take(values.size() * sizeof(int32_t)));
    upload(exec, data, values.data(), values.size() * sizeof(int32_t));
    return data;
  }
  Nf4View nf4(int64_t rows, int64_t cols) {
    Nf4View view;
    view.rows = rows;
    view.cols = cols;
    view.packed = random<uint8_t>(rows * cols / 2);
    view.absmax_u8 = random<uint8_t>(view.blocks());
    view.absmax2 = random<float>((view.blocks() + nf4_nested_block - 1) / nf4_nested_block);
    view.offset = 0.5f;
    return view;
  }

 private:
  template <typename T>
  static std::vector<T> random_pattern() {
    std::vector<T> values(size_t{1} << 22);
    std::minstd_rand random(7);
    for (T& value : values) {
      if constexpr (sizeof(T) == 1) {
        value = static_cast<T>(random() >> 8);
      } else {
        value = T(static_cast<float>(random()) / 1073741824.0f - 1.0f);
      }
    }
    return values;
  }
  std::vector<void*> memory_;
};

/// Microseconds of one call: median over replays of a graph of calls, i counting through the rotated buffers.
double time_of(const std::function<void(int i)>& call) {
  const cudaStream_t stream = context->stream();
  const auto elapsed = [&](const std::function<void()>& work) {
    cudaEvent_t begin, end;
    cuda::check(cudaEventCreate(&begin), "event");
    cuda::check(cudaEventCreate(&end), "event");
    cuda::check(cudaEventRecord(begin, stream), "event");
    work();
    cuda::check(cudaEventRecord(end, stream), "event");
    cuda::check(cudaEventSynchronize(end), "event");
    float ms = 0.0f;
    cuda::check(cudaEventElapsedTime(&ms, begin, end), "event");
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return 1000.0 * ms;
  };
  for (int i = 0; i < 3; ++i) call(i);
  const double once = elapsed([&] { call(3); });
  const int calls = std::clamp(static_cast<int>(8000.0 / once), 4, 400);
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  cuda::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int i = 0; i < calls; ++i) call(i);
  cuda::check(cudaStreamEndCapture(stream, &graph), "capture");
  cuda::check(cudaGraphInstantiate(&replay, graph, 0), "graph");
  std::vector<double> times;
  for (int i = 0; i < 9; ++i) {
    const double us = elapsed([&] { cuda::check(cudaGraphLaunch(replay, stream), "graph"); });
    if (i > 1) times.push_back(us / calls);
  }
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

bool wanted(const std::string& name) { return name.find(filter) != std::string::npos; }

void print(const std::string& name, double us, double flops, double bytes) {
  const double tflops = flops / us * 1e-6, gbs = bytes / us * 1e-3;
  if (json) {
    std::printf(
        "{\"name\":\"%s\",\"us\":%.2f,\"tflops\":%.1f,\"gbs\":%.0f,\"ceiling_tflops\":%.1f,\"ceiling_gbs\":%.0f}\n",
        name.c_str(), us, tflops, gbs, ceiling_tflops, ceiling_gbs);
  } else {
    std::printf("%-58s %9.1f us %7.1f TFLOP/s (%3.0f %%) %6.0f GB/s (%3.0f %%)\n", name.c_str(), us, tflops,
                100.0 * tflops / ceiling_tflops, gbs, 100.0 * gbs / ceiling_gbs);
  }
  std::fflush(stdout);
}

/// How many copies of what one call reads lie beyond the cache.
int copies_of(size_t bytes) { return static_cast<int>(beyond_l2 / std::max<size_t>(bytes, 1)) + 1; }

enum class Product { forward, backward_input, backward_weight };

void dense(const std::string& name, Product product, int64_t n, int64_t out, int64_t in, bool quantised,
           bool accumulate) {
  if (!wanted(name)) return;
  Buffers buffers;
  const double weight_bytes = static_cast<double>(out * in) * (quantised ? 0.516 : 2.0);
  const double rows_bytes = static_cast<double>(n * (out + in)) * 2.0;
  const int copies = std::min(64, copies_of(static_cast<size_t>(weight_bytes + rows_bytes)));
  std::vector<Nf4View> nf4;
  std::vector<Weight> weights;
  std::vector<bf16*> xs, ys;
  std::vector<float*> dws;
  nf4.reserve(static_cast<size_t>(copies));
  for (int i = 0; i < copies; ++i) {
    xs.push_back(buffers.random<bf16>(n * in));
    ys.push_back(buffers.random<bf16>(n * out));
    if (product == Product::backward_weight) {
      dws.push_back(buffers.random<float>(out * in));
    } else if (quantised) {
      nf4.push_back(buffers.nf4(out, in));
      weights.push_back(Weight::of(nf4.back()));
    } else {
      weights.push_back(Weight::of(buffers.random<bf16>(out * in), out, in));
    }
  }
  const double us = time_of([&](int i) {
    const auto at = static_cast<size_t>(i % copies);
    if (product == Product::forward) {
      linear_forward(exec, ys[at], xs[at], weights[at], nullptr, n, 1.0f, accumulate);
    } else if (product == Product::backward_input) {
      linear_backward_input(exec, xs[at], ys[at], weights[at], n, 1.0f, accumulate);
    } else {
      linear_backward_weight(exec, dws[at], ys[at], xs[at], n, out, in, 1.0f);
    }
  });
  const double read_again = accumulate ? static_cast<double>(n * (product == Product::forward ? out : in)) * 2.0 : 0.0;
  const double bytes = product == Product::backward_weight ? rows_bytes + static_cast<double>(out * in) * 8.0
                                                           : rows_bytes + weight_bytes + read_again;
  print(name, us, 2.0 * static_cast<double>(n * out * in), bytes);
}

/// Rows in unequal shares, as routing leaves them.
std::vector<int32_t> shares(int64_t groups, int64_t n) {
  std::mt19937 random(5);
  std::uniform_real_distribution<double> weight(0.5, 1.5);
  std::vector<double> ends = {0.0};
  for (int64_t g = 0; g < groups; ++g) ends.push_back(ends.back() + weight(random));
  std::vector<int32_t> offsets;
  for (const double end : ends) offsets.push_back(static_cast<int32_t>(end / ends.back() * static_cast<double>(n)));
  return offsets;
}

void grouped(const std::string& name, Product product, int64_t groups, int64_t n, int64_t out, int64_t in) {
  if (!wanted(name)) return;
  Buffers buffers;
  bf16* const x = buffers.random<bf16>(n * in);
  bf16* const y = buffers.random<bf16>(n * out);
  bf16* const w = buffers.random<bf16>(groups * out * in);
  float* const dw = buffers.random<float>(groups * out * in);
  const int32_t* const offsets = buffers.offsets(shares(groups, n));
  const double us = time_of([&](int) {
    if (product == Product::forward) {
      grouped_linear_forward(exec, y, x, w, offsets, groups, n, out, in, 1.0f, false);
    } else if (product == Product::backward_input) {
      grouped_linear_backward_input(exec, x, y, w, offsets, groups, n, out, in, 1.0f, false);
    } else {
      grouped_linear_backward_weight(exec, dw, y, x, offsets, groups, n, out, in, 1.0f);
    }
  });
  const double weight_bytes =
      static_cast<double>(groups * out * in) * (product == Product::backward_weight ? 8.0 : 2.0);
  print(name, us, 2.0 * static_cast<double>(n * out * in), weight_bytes + static_cast<double>(n * (out + in)) * 2.0);
}

void router(const std::string& name, Product product, int64_t n, int64_t experts, int64_t in) {
  if (!wanted(name)) return;
  Buffers buffers;
  float* const x = buffers.random<float>(n * in);
  float* const logits = buffers.random<float>(n * experts);
  float* const w = buffers.random<float>(experts * in);
  bf16* const dx = buffers.random<bf16>(n * in);
  const double us = time_of([&](int) {
    if (product == Product::forward) {
      linear_forward(exec, logits, x, Weight::of(w, experts, in), nullptr, n, 1.0f, false);
    } else if (product == Product::backward_input) {
      linear_backward_input(exec, dx, logits, Weight::of(w, experts, in), n, 1.0f, true);
    } else {
      linear_backward_weight(exec, w, logits, x, n, experts, in, 1.0f);
    }
  });
  print(name, us, 2.0 * static_cast<double>(n * experts * in), static_cast<double>(n * in) * 4.0);
}

void measure_ceilings() {
  Buffers buffers;
  const size_t bytes = size_t{1} << 30;
  void* const from = buffers.random<float>(static_cast<int64_t>(bytes / 4));
  void* const to = buffers.take(bytes);
  ceiling_gbs = 2.0 * static_cast<double>(bytes) * 1e-3 / time_of([&](int) { copy_bytes(exec, to, from, bytes); });
  const int64_t n = 8192;
  bf16* const x = buffers.random<bf16>(n * n);
  bf16* const w = buffers.random<bf16>(n * n);
  bf16* const y = buffers.random<bf16>(n * n);
  const double us = time_of([&](int) { linear_forward(exec, y, x, Weight::of(w, n, n), nullptr, n, 1.0f, false); });
  ceiling_tflops = 2.0 * static_cast<double>(n * n * n) / us * 1e-6;
  if (!json) std::printf("ceilings: %.0f TFLOP/s (8192^3 bf16), %.0f GB/s (copy)\n", ceiling_tflops, ceiling_gbs);
}

void training_rows(int64_t tokens) {
  const struct {
    const char* name;
    int64_t out, in;
  } projections[] = {
      {"q/k/v/o 4096x4096", 4096, 4096}, {"gate/up 11008x4096", 11008, 4096}, {"down 4096x11008", 4096, 11008}};
  for (const auto& p : projections) {
    for (const bool nf4 : {false, true}) {
      const std::string base = std::string(p.name) + (nf4 ? ", NF4" : ", bf16");
      dense("forward " + base, Product::forward, tokens, p.out, p.in, nf4, false);
      dense("backward " + base, Product::backward_input, tokens, p.out, p.in, nf4, false);
    }
  }
  for (const int64_t width : {4096, 11008}) {
    const std::string of = std::to_string(width);
    dense("LoRA u = A x, 64x" + of, Product::forward, tokens, 64, width, false, false);
    dense("LoRA y += B u, " + of + "x64", Product::forward, tokens, width, 64, false, true);
    dense("LoRA du = dy B, " + of + "x64", Product::backward_input, tokens, width, 64, false, false);
    dense("LoRA dx += du A, 64x" + of, Product::backward_input, tokens, 64, width, false, true);
    dense("LoRA dA, 64x" + of, Product::backward_weight, tokens, 64, width, false, true);
    dense("LoRA dB, " + of + "x64", Product::backward_weight, tokens, width, 64, false, true);
  }
  const int64_t c = 4096, a = 512, rows = 2 * tokens;
  for (const int64_t experts : {8, 16}) {
    const std::string of = "adapters E=" + std::to_string(experts);
    grouped(of + " down forward", Product::forward, experts, rows, a, c);
    grouped(of + " up forward", Product::forward, experts, rows, c, a);
    grouped(of + " down backward", Product::backward_input, experts, rows, a, c);
    grouped(of + " up backward", Product::backward_input, experts, rows, c, a);
    grouped(of + " down dw", Product::backward_weight, experts, rows, a, c);
    grouped(of + " up dw", Product::backward_weight, experts, rows, c, a);
  }
  dense("one adapter, all rows: down forward", Product::forward, rows, a, c, false, false);
  dense("one adapter, all rows: up forward", Product::forward, rows, c, a, false, false);
  dense("one adapter, all rows: down backward", Product::backward_input, rows, a, c, false, false);
  dense("one adapter, all rows: up backward", Product::backward_input, rows, c, a, false, false);
  dense("one adapter, all rows: down dw", Product::backward_weight, rows, a, c, false, true);
  dense("one adapter, all rows: up dw", Product::backward_weight, rows, c, a, false, true);
  router("router forward f32", Product::forward, tokens, 8, c);
  router("router backward f32", Product::backward_input, tokens, 8, c);
  router("router dw f32", Product::backward_weight, tokens, 8, c);
}

void decoding_rows() {
  for (const int64_t n : {1, 2, 4, 8}) {
    const std::string of = ", N=" + std::to_string(n);
    dense("decode NF4 4096x4096" + of, Product::forward, n, 4096, 4096, true, false);
    dense("decode NF4 11008x4096" + of, Product::forward, n, 11008, 4096, true, false);
    dense("decode NF4 4096x11008" + of, Product::forward, n, 4096, 11008, true, false);
    dense("decode bf16 32000x4096" + of, Product::forward, n, 32000, 4096, false, false);
    dense("decode LoRA u = A x, 64x4096" + of, Product::forward, n, 64, 4096, false, false);
    dense("decode LoRA y += B u, 4096x64" + of, Product::forward, n, 4096, 64, false, true);
    grouped("decode adapters down E=8" + of, Product::forward, 8, 2 * n, 512, 4096);
    grouped("decode adapters up E=8" + of, Product::forward, 8, 2 * n, 4096, 512);
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) {
      json = true;
    } else {
      filter = argv[i];
    }
  }
  try {
    context = make_cuda_context();
    exec.device = Device::cuda;
    exec.cuda = context.get();
    cudaDeviceProp device;
    cuda::check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
    int driver = 0;
    cuda::check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    const cuda::CublasLtLibrary& library = cuda::cublaslt_library();
    std::fprintf(stderr, "%s, driver for CUDA %d.%d, cuBLASLt %zu %s\n", device.name, driver / 1000, driver % 1000 / 10,
                 library.version, library.found() ? library.path.c_str() : library.missing.c_str());
    measure_ceilings();
    training_rows(8192);
    decoding_rows();
    context->use_cublaslt(false);
    dense("own kernel: 8192^3", Product::forward, 8192, 8192, 8192, false, false);
    dense("own kernel: forward gate/up", Product::forward, 8192, 11008, 4096, false, false);
    dense("own kernel: backward gate/up", Product::backward_input, 8192, 11008, 4096, false, false);
    dense("own kernel: dw 4096x4096", Product::backward_weight, 8192, 4096, 4096, false, true);
    context->use_wgmma(false);
    dense("own kernel for any GPU: 8192^3", Product::forward, 8192, 8192, 8192, false, false);
    dense("own kernel for any GPU: forward gate/up", Product::forward, 8192, 11008, 4096, false, false);
    grouped("own kernel for any GPU: adapters E=8 down forward", Product::forward, 8, 16384, 512, 4096);
    grouped("own kernel for any GPU: adapters E=8 down dw", Product::backward_weight, 8, 16384, 512, 4096);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cuda_matmul_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
