// Speed of the GPU's operations other than products and attention, at the shapes of a Llama-2-7B with eight experts of
// 512 over 8192 tokens: median time, and for those bound by memory the bytes that they must move per second beside what a
// copy reaches.
//   cuda_kernels_bench [operation that the name begins with]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kernels/activation.h"
#include "kernels/classifier.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda_context.h"
#include "kernels/dropout.h"
#include "kernels/moe.h"
#include "kernels/nf4.h"
#include "kernels/norm.h"
#include "kernels/optimizer.h"
#include "kernels/random.h"
#include "kernels/rope.h"
#include "kernels/transfer.h"

using namespace caravan;

namespace {

constexpr int64_t n = 8192, c = 4096, f = 11008, experts = 8, top_k = 2, m = n * top_k, a = 512, v = 32000;
constexpr int64_t entropy_rows = 524;
/// What all copies of an operation's arrays take together at least, so that the L2 holds none of them.
constexpr size_t beyond_cache = size_t{256} << 20;

class Event {
 public:
  Event() { cuda::check(cudaEventCreate(&event_), "cudaEventCreate"); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }
  void record(const Exec& exec) { cuda::check(cudaEventRecord(event_, cuda::stream_of(exec)), "cudaEventRecord"); }
  double ms_since(const Event& start) const {
    float ms = 0.0f;
    cuda::check(cudaEventElapsedTime(&ms, start.event_, event_), "cudaEventElapsedTime");
    return ms;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Memory of the device, of which an operation's arrays are cut anew for each repetition.
class Pool {
 public:
  Pool(const Exec& exec, size_t bytes) : bytes_(bytes), memory_(static_cast<char*>(cuda_allocate(bytes))) {
    fill_uniform(exec, reinterpret_cast<bf16*>(memory_), static_cast<int64_t>(bytes / 2), 1.0f, 1, 1);
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() { cuda_free(memory_); }

  template <typename T>
  T* take(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
    if (used_ + bytes > bytes_) throw EngineError("out_of_memory", "the pool is too small for this operation");
    char* const taken = memory_ + used_;
    used_ += bytes;
    return reinterpret_cast<T*>(taken);
  }
  size_t used() const { return used_; }
  void reset() { used_ = 0; }
  bool holds(size_t bytes) const { return used_ + bytes <= bytes_; }

 private:
  size_t bytes_, used_ = 0;
  char* memory_;
};

using Operation = std::function<void()>;

class Bench {
 public:
  Bench(const Exec& exec, std::string filter) : exec_(exec), filter_(std::move(filter)), pool_(exec, size_t{6} << 30) {}

  /// `make` cuts arrays from the pool and returns what is to be timed. `bytes`: what it must read and write.
  void time(const std::string& name, double bytes, const std::function<Operation(Pool&)>& make) {
    if (name.rfind(filter_, 0) != 0 && name != "copy") return;
    pool_.reset();
    std::vector<Operation> copies;
    size_t each = 0;
    do {
      copies.push_back(make(pool_));
      each = pool_.used() / copies.size();
    } while (pool_.used() < beyond_cache && pool_.holds(each) && copies.size() < 64);

    constexpr int runs = 9;
    const int repeats = std::max(20, static_cast<int>(copies.size()));
    std::vector<double> times;
    Event start, stop;
    for (int run = 0; run <= runs; ++run) {
      start.record(exec_);
      for (int i = 0; i < repeats; ++i) copies[static_cast<size_t>(i) % copies.size()]();
      stop.record(exec_);
      synchronize(exec_);
      if (run > 0) times.push_back(stop.ms_since(start) * 1e3 / repeats);
    }
    std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
    const double us = times[runs / 2], rate = bytes / us * 1e-3;
    if (name == "copy") copy_rate_ = rate;
    std::printf("%-34s %9.1f us", name.c_str(), us);
    if (bytes > 1e6) std::printf("  %7.0f GB/s  %5.2f of a copy", rate, rate / copy_rate_);
    std::printf("\n");
  }

 private:
  const Exec exec_;
  std::string filter_;
  Pool pool_;
  double copy_rate_ = 1.0;
};

void upload_vector(const Exec& exec, int32_t* to, const std::vector<int32_t>& values) {
  upload(exec, to, values.data(), values.size() * sizeof(int32_t));
}

std::vector<int32_t> numbers(int64_t count, const std::function<int64_t(int64_t)>& value) {
  std::vector<int32_t> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<int32_t>(value(i)));
  return values;
}

void bench_elements(const Exec& exec, Bench& bench) {
  bench.time("swiglu_forward", 6.0 * n * f, [&](Pool& pool) {
    bf16 *out = pool.take<bf16>(n * f), *gate = pool.take<bf16>(n * f), *up = pool.take<bf16>(n * f);
    return [=, &exec] { swiglu_forward(exec, out, gate, up, n * f); };
  });
  bench.time("swiglu_backward", 10.0 * n * f, [&](Pool& pool) {
    bf16 *gate = pool.take<bf16>(n * f), *up = pool.take<bf16>(n * f), *dout = pool.take<bf16>(n * f);
    bf16 *dgate = pool.take<bf16>(n * f), *dup = pool.take<bf16>(n * f);
    return [=, &exec] { swiglu_backward(exec, dgate, dup, dout, gate, up, n * f); };
  });
  bench.time("gelu_forward", 4.0 * m * a, [&](Pool& pool) {
    bf16 *out = pool.take<bf16>(m * a), *x = pool.take<bf16>(m * a);
    return [=, &exec] { gelu_forward(exec, out, x, m * a); };
  });
  bench.time("gelu_backward", 6.0 * m * a, [&](Pool& pool) {
    bf16 *dx = pool.take<bf16>(m * a), *dout = pool.take<bf16>(m * a), *x = pool.take<bf16>(m * a);
    return [=, &exec] { gelu_backward(exec, dx, dout, x, m * a); };
  });
  bench.time("add_inplace", 6.0 * n * c, [&](Pool& pool) {
    bf16 *y = pool.take<bf16>(n * c), *x = pool.take<bf16>(n * c);
    return [=, &exec] { add_inplace(exec, y, x, n * c); };
  });
  bench.time("convert bf16 to f32", 6.0 * n * c, [&](Pool& pool) {
    float* y = pool.take<float>(n * c);
    bf16* x = pool.take<bf16>(n * c);
    return [=, &exec] { convert(exec, y, x, n * c); };
  });
  bench.time("convert f32 to bf16", 6.0 * n * c, [&](Pool& pool) {
    bf16* y = pool.take<bf16>(n * c);
    float* x = pool.take<float>(n * c);
    return [=, &exec] { convert(exec, y, x, n * c); };
  });
}

void bench_rows(const Exec& exec, Bench& bench) {
  bench.time("rmsnorm_forward", 4.0 * n * c, [&](Pool& pool) {
    bf16 *y = pool.take<bf16>(n * c), *x = pool.take<bf16>(n * c);
    float *weight = pool.take<float>(c), *rstd = pool.take<float>(n);
    return [=, &exec] { rmsnorm_forward(exec, y, rstd, x, weight, n, c, 1e-5f); };
  });
  bench.time("rmsnorm_forward of heads", 4.0 * n * c, [&](Pool& pool) {
    bf16 *y = pool.take<bf16>(n * c), *x = pool.take<bf16>(n * c);
    float *weight = pool.take<float>(c), *rstd = pool.take<float>(n * c / 128);
    return [=, &exec] { rmsnorm_forward(exec, y, rstd, x, weight, n * c / 128, 128, 1e-5f); };
  });
  for (const bool weights : {false, true}) {
    bench.time(weights ? "rmsnorm_backward with dweight" : "rmsnorm_backward", 8.0 * n * c, [&](Pool& pool) {
      bf16 *dx = pool.take<bf16>(n * c), *dy = pool.take<bf16>(n * c), *x = pool.take<bf16>(n * c);
      float *weight = pool.take<float>(c), *rstd = pool.take<float>(n), *dweight = pool.take<float>(c);
      return [=, &exec] { rmsnorm_backward(exec, dx, weights ? dweight : nullptr, dy, x, rstd, weight, n, c, true); };
    });
  }
  const auto rope = [&](Pool& pool) {
    bf16* x = pool.take<bf16>(n * c);
    float *cos = pool.take<float>(2048 * 64), *sin = pool.take<float>(2048 * 64);
    int32_t* position = pool.take<int32_t>(n);
    upload_vector(exec, position, numbers(n, [](int64_t i) { return i % 2048; }));
    return [=, &exec] { rope_apply(exec, x, cos, sin, position, n, c / 128, 128, false); };
  };
  bench.time("rope_apply", 4.0 * n * c, rope);
  for (const int64_t width : {c, f}) {
    bench.time("dropout_kept " + std::to_string(width), 4.0 * n * static_cast<double>(kept_words(width)),
               [&, width](Pool& pool) {
                 uint32_t* kept = pool.take<uint32_t>(n * kept_words(width));
                 DropoutMask mask;
                 int32_t *conversation = pool.take<int32_t>(n), *position = pool.take<int32_t>(n);
                 upload_vector(exec, conversation, numbers(n, [](int64_t i) { return i / 2048; }));
                 upload_vector(exec, position, numbers(n, [](int64_t i) { return i % 2048; }));
                 mask.p = 0.1f;
                 mask.seed = 5;
                 mask.step = 1;
                 mask.conversation = conversation;
                 mask.position = position;
                 return [=, &exec] { dropout_kept(exec, kept, mask, n, width); };
               });
  }
}

void bench_classifier(const Exec& exec, Bench& bench) {
  const std::vector<int32_t> ids = numbers(n, [](int64_t i) { return (i * i * 31) % v; });
  bench.time("embedding_forward", 4.0 * n * c, [&](Pool& pool) {
    bf16 *out = pool.take<bf16>(n * c), *table = pool.take<bf16>(v * c);
    int32_t* id = pool.take<int32_t>(n);
    upload_vector(exec, id, ids);
    return [=, &exec] { embedding_forward(exec, out, table, id, n, c); };
  });
  bench.time("embedding_backward", 6.0 * n * c, [&](Pool& pool) {
    bf16* dout = pool.take<bf16>(n * c);
    float* dtable = pool.take<float>(v * c);
    int32_t* id = pool.take<int32_t>(n);
    upload_vector(exec, id, ids);
    return [=, &exec] { embedding_backward(exec, dtable, dout, id, n, c, v); };
  });
  for (const int64_t vocabulary : {v, int64_t{128256}}) {
    const int64_t rows = entropy_rows * v / vocabulary;
    for (const bool gradient : {false, true}) {
      const std::string name =
          std::string("cross_entropy ") + std::to_string(vocabulary) + (gradient ? ", gradient" : "");
      bench.time(name, (gradient ? 8.0 : 4.0) * static_cast<double>(rows * vocabulary),
                 [&, vocabulary, rows, gradient](Pool& pool) {
                   float *logits = pool.take<float>(rows * vocabulary), *losses = pool.take<float>(rows);
                   int32_t* targets = pool.take<int32_t>(rows);
                   upload_vector(exec, targets, numbers(rows, [](int64_t i) { return i * 61; }));
                   return
                       [=, &exec] { cross_entropy(exec, losses, logits, targets, rows, vocabulary, gradient, 1.0f); };
                 });
    }
  }
}

/// Routing of random logits.
struct Routed {
  float *logits, *weights, *dweights, *dlogits, *loss, *probability;
  int32_t *chosen, *offsets, *source, *inverse;
  int64_t* tokens;

  Routed(const Exec& exec, Pool& pool)
      : logits(pool.take<float>(n * experts)),
        weights(pool.take<float>(n * top_k)),
        dweights(pool.take<float>(n * top_k)),
        dlogits(pool.take<float>(n * experts)),
        loss(pool.take<float>(1)),
        probability(pool.take<float>(experts)),
        chosen(pool.take<int32_t>(n * top_k)),
        offsets(pool.take<int32_t>(experts + 1)),
        source(pool.take<int32_t>(n * top_k)),
        inverse(pool.take<int32_t>(n * top_k)),
        tokens(pool.take<int64_t>(experts)) {
    fill_uniform(exec, logits, n * experts, 1.0f, 2, 2);
    router_topk_forward(exec, chosen, weights, logits, n, experts, top_k);
    moe_sort(exec, offsets, source, chosen, nullptr, n, experts, top_k);
    moe_invert(exec, inverse, source, m, n, top_k);
    balance_loss_forward(exec, loss, tokens, probability, logits, chosen, nullptr, n, experts, top_k);
  }
};

void bench_routing(const Exec& exec, Bench& bench) {
  bench.time("router_topk_forward", 0.0, [&](Pool& pool) {
    const Routed r(exec, pool);
    return [=, &exec] { router_topk_forward(exec, r.chosen, r.weights, r.logits, n, experts, top_k); };
  });
  bench.time("router_topk_backward", 0.0, [&](Pool& pool) {
    const Routed r(exec, pool);
    return [=, &exec] { router_topk_backward(exec, r.dlogits, r.dweights, r.chosen, r.weights, n, experts, top_k); };
  });
  bench.time("moe_sort", 0.0, [&](Pool& pool) {
    const Routed r(exec, pool);
    return [=, &exec] { moe_sort(exec, r.offsets, r.source, r.chosen, nullptr, n, experts, top_k); };
  });
  bench.time("moe_invert", 0.0, [&](Pool& pool) {
    const Routed r(exec, pool);
    return [=, &exec] { moe_invert(exec, r.inverse, r.source, m, n, top_k); };
  });
  bench.time("balance_loss_forward", 0.0, [&](Pool& pool) {
    const Routed r(exec, pool);
    return [=, &exec] {
      balance_loss_forward(exec, r.loss, r.tokens, r.probability, r.logits, r.chosen, nullptr, n, experts, top_k);
    };
  });
  bench.time("balance_loss_backward", 0.0, [&](Pool& pool) {
    const Routed r(exec, pool);
    return
        [=, &exec] { balance_loss_backward(exec, r.dlogits, 0.01f, r.logits, r.tokens, nullptr, n, experts, top_k); };
  });
  bench.time("moe_gather", 2.0 * (n + m) * c, [&](Pool& pool) {
    const Routed r(exec, pool);
    bf16 *out = pool.take<bf16>(m * c), *x = pool.take<bf16>(n * c);
    return [=, &exec] { moe_gather(exec, out, x, r.source, nullptr, 1.0f, m, c, top_k); };
  });
  bench.time("moe_combine_forward", 2.0 * (2 * n + m) * c, [&](Pool& pool) {
    const Routed r(exec, pool);
    bf16 *out = pool.take<bf16>(m * c), *y = pool.take<bf16>(n * c);
    return [=, &exec] { moe_combine_forward(exec, y, out, r.weights, r.inverse, n, c, top_k, 0.25f); };
  });
  bench.time("moe_combine_backward", 2.0 * (n + 2 * m) * c, [&](Pool& pool) {
    const Routed r(exec, pool);
    bf16 *out = pool.take<bf16>(m * c), *dout = pool.take<bf16>(m * c), *dy = pool.take<bf16>(n * c);
    return [=, &exec] {
      moe_combine_backward(exec, dout, r.dweights, dy, out, r.weights, r.source, r.inverse, n, m, c, top_k, 0.25f);
    };
  });
}

template <typename T>
void bench_updates(const Exec& exec, Bench& bench, const char* type, int64_t count) {
  const std::string of = std::string(" ") + type + " of " + std::to_string(count);
  const double size = sizeof(T), elements = static_cast<double>(count);
  AdamWOptions options;
  options.lr = 1e-4f;
  bench.time("adamw_update" + of, (3.0 * size + 16.0) * elements, [&, count](Pool& pool) {
    T *p = pool.take<T>(count), *g = pool.take<T>(count);
    float *first = pool.take<float>(count), *second = pool.take<float>(count);
    fill_uniform(exec, g, count, 1e-3f, 3, 1);
    fill_uniform(exec, first, count, 1e-3f, 3, 2);
    fill_constant(exec, second, count, 1e-6f);
    return [=, &exec] { adamw_update(exec, p, g, first, second, count, options); };
  });
  bench.time("adamw8bit_update" + of, (3.0 * size + 4.0) * elements, [&, count](Pool& pool) {
    T *p = pool.take<T>(count), *g = pool.take<T>(count);
    uint8_t *state1 = pool.take<uint8_t>(count), *state2 = pool.take<uint8_t>(count);
    float *absmax1 = pool.take<float>(count / 256 + 1), *absmax2 = pool.take<float>(count / 256 + 1);
    fill_uniform(exec, p, count, 1e-2f, 3, 2);
    fill_normal(exec, g, count, 1e-3f, 3, 1);
    zero_bytes(exec, state1, static_cast<size_t>(count));
    zero_bytes(exec, state2, static_cast<size_t>(count));
    zero_bytes(exec, absmax1, static_cast<size_t>(count / 256 + 1) * sizeof(float));
    zero_bytes(exec, absmax2, static_cast<size_t>(count / 256 + 1) * sizeof(float));
    return [=, &exec] { adamw8bit_update(exec, p, g, state1, state2, absmax1, absmax2, count, options); };
  });
  bench.time("squared_norm_add" + of, size * elements, [&, count](Pool& pool) {
    T* g = pool.take<T>(count);
    double* sum = pool.take<double>(1);
    return [=, &exec] { squared_norm_add(exec, sum, g, count); };
  });
}

void bench_optimizer(const Exec& exec, Bench& bench) {
  for (const int64_t count : {experts * a * c, 64 * c}) {  // all experts' matrices of a layer; one of LoRA
    bench_updates<float>(exec, bench, "f32", count);
    bench_updates<bf16>(exec, bench, "bf16", count);
  }
  bench.time("stochastic_round", 6.0 * experts * a * c, [&](Pool& pool) {
    bf16* y = pool.take<bf16>(experts * a * c);
    float* x = pool.take<float>(experts * a * c);
    return [=, &exec] { stochastic_round(exec, y, x, experts * a * c, 1, 2, 3, 4); };
  });
}

void bench_nf4(const Exec& exec, Bench& bench) {
  for (const int64_t rows : {f, c}) {
    const std::string of = " " + std::to_string(rows) + " x " + std::to_string(c);
    const double bytes = (2.5 + 1.0 / 64) * static_cast<double>(rows * c);
    const auto quantised = [&exec, rows](Pool& pool, bf16* weight) {
      Nf4Arrays arrays;
      char* const memory = pool.take<char>(static_cast<int64_t>(nf4_place(arrays, nullptr, rows, c, true)));
      nf4_place(arrays, memory, rows, c, true);
      return std::pair(arrays, nf4_quantize_into(exec, arrays, weight, rows, c));
    };
    bench.time("nf4_dequantize" + of, bytes, [&, rows](Pool& pool) {
      bf16* weight = pool.take<bf16>(rows * c);
      fill_normal(exec, weight, rows * c, 0.02f, 6, 6);
      const Nf4View view = quantised(pool, weight).second;
      return [=, &exec] { nf4_dequantize(exec, weight, view); };
    });
    bench.time("nf4_quantize_into" + of, bytes, [&, rows](Pool& pool) {
      bf16* weight = pool.take<bf16>(rows * c);
      fill_normal(exec, weight, rows * c, 0.02f, 6, 6);
      const Nf4Arrays arrays = quantised(pool, weight).first;
      return [=, &exec] { nf4_quantize_into(exec, arrays, weight, rows, c); };
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::shared_ptr<cuda::Context> context = make_cuda_context();
    Exec exec;
    exec.device = Device::cuda;
    exec.cuda = context.get();
    cudaDeviceProp properties{};
    cuda::check(cudaGetDeviceProperties(&properties, context->device()), "cudaGetDeviceProperties");
    std::printf("%s\n", properties.name);
    Bench bench(exec, argc > 1 ? argv[1] : "");
    bench.time("copy", 2.0 * (512 << 20), [&](Pool& pool) {
      char *to = pool.take<char>(512 << 20), *from = pool.take<char>(512 << 20);
      return [=, &exec] { copy_bytes(exec, to, from, 512 << 20); };
    });
    bench_elements(exec, bench);
    bench_rows(exec, bench);
    bench_classifier(exec, bench);
    bench_routing(exec, bench);
    bench_optimizer(exec, bench);
    bench_nf4(exec, bench);
  } catch (const EngineError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
