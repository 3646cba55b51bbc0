// Speed of attention on the GPU at the shapes of 7B models, median of CUDA events over buffers that exceed the L2.
// FLOPs of a causal sequence of length T: 2 T^2 head_dim a head forward (two products, half of each), 2.5 times that
// backward, whatever is computed again on the way.
//   cuda_attention_bench [f|b|d|8 ..]: forward, backward, decode (all when none is given); 8: the kernels of sm_80
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda_context.h"
#include "kernels/transfer.h"

using namespace caravan;

namespace {

Exec exec;

/// Median seconds of one call; `body` gets the number of the call.
double median_seconds(const std::function<void(int)>& body) {
  constexpr int warm_up = 5, runs = 25;
  const cudaStream_t stream = exec.cuda->stream();
  std::vector<cudaEvent_t> events(runs + 1);
  for (cudaEvent_t& event : events) cuda::check(cudaEventCreate(&event), "cudaEventCreate");
  for (int i = 0; i < warm_up; ++i) body(i);
  for (int i = 0; i < runs; ++i) {
    cuda::check(cudaEventRecord(events[static_cast<size_t>(i)], stream), "cudaEventRecord");
    body(i);
  }
  cuda::check(cudaEventRecord(events.back(), stream), "cudaEventRecord");
  synchronize(exec);
  std::vector<float> times(runs);
  for (size_t i = 0; i < times.size(); ++i) cudaEventElapsedTime(&times[i], events[i], events[i + 1]);
  for (const cudaEvent_t event : events) cudaEventDestroy(event);
  std::sort(times.begin(), times.end());
  return static_cast<double>(times[times.size() / 2]) * 1e-3;
}

/// Random bf16 on the device, never freed: the program ends with it.
bf16* random_array(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  constexpr int64_t period = 1 << 20;
  std::vector<bf16> values(static_cast<size_t>(std::min(count, period)));
  for (bf16& value : values) value = bf16(normal(random));
  bf16* const array = static_cast<bf16*>(cuda_allocate(static_cast<size_t>(count) * sizeof(bf16)));
  for (int64_t at = 0; at < count; at += period) {
    upload(exec, array + at, values.data(), static_cast<size_t>(std::min(period, count - at)) * sizeof(bf16));
  }
  return array;
}

struct Buffers {
  bf16 *q, *k, *v, *out, *dout, *dq, *dk, *dv;
  float* lse;
};

void bench_training(const char* name, int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t sequences,
                    int64_t length, int64_t window, bool forward, bool backward) {
  const int64_t n = sequences * length;
  const AttentionShape shape{heads, kv_heads, head_dim, window, 1.0f / std::sqrt(static_cast<float>(head_dim))};
  std::vector<int32_t> cuts;
  for (int64_t i = 0; i <= sequences; ++i) cuts.push_back(static_cast<int32_t>(i * length));
  int32_t* const cu_seqlens = static_cast<int32_t*>(cuda_allocate(cuts.size() * sizeof(int32_t)));
  upload(exec, cu_seqlens, cuts.data(), cuts.size() * sizeof(int32_t));
  std::vector<Buffers> sets;
  for (uint32_t i = 0; i < 2; ++i) {
    const auto array = [&](int64_t width, uint32_t seed) { return random_array(n * width * head_dim, 10 * i + seed); };
    sets.push_back({array(heads, 1), array(kv_heads, 2), array(kv_heads, 3), array(heads, 4), array(heads, 5),
                    array(heads, 6), array(kv_heads, 7), array(kv_heads, 8),
                    static_cast<float*>(cuda_allocate(static_cast<size_t>(n * heads) * sizeof(float)))});
  }
  const auto run_forward = [&](int i) {
    const Buffers& b = sets[static_cast<size_t>(i) % sets.size()];
    attention_forward(exec, b.out, b.lse, b.q, b.k, b.v, cu_seqlens, sequences, n, shape);
  };
  const auto run_backward = [&](int i) {
    const Buffers& b = sets[static_cast<size_t>(i) % sets.size()];
    attention_backward(exec, b.dq, b.dk, b.dv, b.dout, b.q, b.k, b.v, b.out, b.lse, cu_seqlens, sequences, n, shape);
  };
  double pairs = 0.0;  // of a query and a key it sees
  for (int64_t i = 0; i < length; ++i) pairs += static_cast<double>(window > 0 ? std::min(window, i + 1) : i + 1);
  const double tflop = 4e-12 * pairs * static_cast<double>(sequences * heads * head_dim);
  for (int i = 0; i < 2; ++i) run_forward(i);
  const double f = forward ? median_seconds(run_forward) : 0.0, b = backward ? median_seconds(run_backward) : 0.0;
  std::printf("%-28s forward %8.1f us %6.1f TFLOP/s | backward %8.1f us %6.1f TFLOP/s\n", name, f * 1e6,
              f > 0.0 ? tflop / f : 0.0, b * 1e6, b > 0.0 ? 2.5 * tflop / b : 0.0);
  std::fflush(stdout);
  for (const Buffers& set : sets) {
    for (void* array : {static_cast<void*>(set.q), static_cast<void*>(set.k), static_cast<void*>(set.v),
                        static_cast<void*>(set.out), static_cast<void*>(set.dout), static_cast<void*>(set.dq),
                        static_cast<void*>(set.dk), static_cast<void*>(set.dv), static_cast<void*>(set.lse)}) {
      cuda_free(array);
    }
  }
}

void bench_decode(const char* name, int64_t heads, int64_t kv_heads, int64_t past, int64_t n) {
  constexpr int64_t head_dim = 128, layers = 8;  // caches in turn, as a model's layers are
  const AttentionShape shape{heads, kv_heads, head_dim, 0, 1.0f / std::sqrt(128.0f)};
  const int64_t keys = past + n;
  bf16* const q = random_array(n * heads * head_dim, 1);
  bf16* const out = random_array(n * heads * head_dim, 2);
  std::vector<bf16*> k, v;
  for (uint32_t i = 0; i < layers; ++i) {
    k.push_back(random_array(keys * kv_heads * head_dim, 3 + i));
    v.push_back(random_array(keys * kv_heads * head_dim, 30 + i));
  }
  const double seconds = median_seconds([&](int) {
                           for (size_t i = 0; i < layers; ++i)
                             attention_decode(exec, out, q, k[i], v[i], past, n, shape);
                         }) /
                         layers;
  const double bytes = 2.0 * static_cast<double>(keys * kv_heads * head_dim * 2);
  const double tflop =
      4e-12 * static_cast<double>(n * heads * head_dim) * (static_cast<double>(past) + 0.5 * static_cast<double>(n));
  std::printf("%-28s past %5ld n %3ld: %7.2f us a layer, %7.1f GB/s, %6.1f TFLOP/s\n", name, static_cast<long>(past),
              static_cast<long>(n), seconds * 1e6, 1e-9 * bytes / seconds, tflop / seconds);
  for (bf16* array : k) cuda_free(array);
  for (bf16* array : v) cuda_free(array);
  cuda_free(q);
  cuda_free(out);
}

}  // namespace

int main(int argc, char** argv) {
  std::string what;
  for (int i = 1; i < argc; ++i) what += argv[i];
  const auto wanted = [&](char c) { return what.empty() || what.find(c) != std::string::npos; };
  try {
    const auto context = make_cuda_context();
    exec.device = Device::cuda;
    exec.cuda = context.get();
    if (what.find('8') != std::string::npos) context->limit_compute_capability(80);
    const bool f = wanted('f'), b = wanted('b');
    if (f || b) {
      bench_training("llama2-7b 4 x 2048", 32, 32, 128, 4, 2048, 0, f, b);
      bench_training("llama2-7b 1 x 8192", 32, 32, 128, 1, 8192, 0, f, b);
      bench_training("llama2-7b 16 x 512", 32, 32, 128, 16, 512, 0, f, b);
      bench_training("mistral-7b 4 x 2048", 32, 8, 128, 4, 2048, 0, f, b);
      bench_training("mistral-7b 1 x 8192 w 4096", 32, 8, 128, 1, 8192, 4096, f, b);
      bench_training("smollm2-135m 16 x 512", 9, 3, 64, 16, 512, 0, f, b);
    }
    if (wanted('d')) {
      for (const int64_t past : {0, 2047, 8191}) {
        bench_decode("llama2-7b", 32, 32, past, 1);
        bench_decode("mistral-7b", 32, 8, past, 1);
      }
      bench_decode("llama2-7b", 32, 32, 2044, 4);
      bench_decode("llama2-7b prompt", 32, 32, 1536, 512);
      bench_decode("mistral-7b prompt", 32, 8, 1536, 512);
    }
    return 0;
  } catch (const EngineError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
