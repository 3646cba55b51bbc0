#include "kernels/activation.h"

#include <cstring>

#include "kernels/cpu/activation_kernels.h"
#include "kernels/cpu/cpu_isa.h"

namespace caravan::cpu {

namespace portable {
extern const ActivationKernels activation;
}
#if defined(CARAVAN_X86_64)
namespace avx2 {
extern const ActivationKernels activation;
}
namespace avx512 {
extern const ActivationKernels activation;
}
#endif

namespace {

constexpr int64_t grain = 4096;

const ActivationKernels& kernels() {
#if defined(CARAVAN_X86_64)
  switch (cpu_isa()) {
    case Isa::avx512bf16:
    case Isa::avx512: return avx512::activation;
    case Isa::avx2: return avx2::activation;
    case Isa::portable: break;
  }
#endif
  return portable::activation;
}

bool is_bf16(ConstPtr p) { return p.dtype == DType::bf16; }

}  // namespace

void swiglu_forward(const Exec& exec, Ptr out, ConstPtr gate, ConstPtr up, int64_t count) {
  parallel_for(exec, count, grain, [&](int64_t first, int64_t last) {
    kernels().swiglu_forward(is_bf16(gate), out.data, gate.data, up.data, first, last);
  });
}

void swiglu_backward(const Exec& exec, Ptr dgate, Ptr dup, ConstPtr dout, ConstPtr gate, ConstPtr up, int64_t count) {
  parallel_for(exec, count, grain, [&](int64_t first, int64_t last) {
    kernels().swiglu_backward(is_bf16(gate), dgate.data, dup.data, dout.data, gate.data, up.data, first, last);
  });
}

void gelu_forward(const Exec& exec, Ptr out, ConstPtr x, int64_t count) {
  parallel_for(exec, count, grain,
               [&](int64_t first, int64_t last) { kernels().gelu_forward(is_bf16(x), out.data, x.data, first, last); });
}

void gelu_backward(const Exec& exec, Ptr dx, ConstPtr dout, ConstPtr x, int64_t count) {
  parallel_for(exec, count, grain, [&](int64_t first, int64_t last) {
    kernels().gelu_backward(is_bf16(x), dx.data, dout.data, x.data, first, last);
  });
}

void add_inplace(const Exec& exec, Ptr y, ConstPtr x, int64_t count) {
  parallel_for(exec, count, grain, [&](int64_t first, int64_t last) {
    kernels().convert(is_bf16(y), is_bf16(x), true, y.data, x.data, first, last);
  });
}

void convert(const Exec& exec, Ptr y, ConstPtr x, int64_t count) {
  if (y.dtype == x.dtype) {
    parallel_for(exec, count, 4 * grain, [&](int64_t first, int64_t last) {
      std::memcpy(y.at(first).data, x.at(first).data, static_cast<size_t>(last - first) * size_of(y.dtype));
    });
    return;
  }
  parallel_for(exec, count, grain, [&](int64_t first, int64_t last) {
    kernels().convert(is_bf16(y), is_bf16(x), false, y.data, x.data, first, last);
  });
}

void fill_zero(const Exec& exec, Ptr y, int64_t count) {
  parallel_for(exec, count, 16 * grain, [&](int64_t first, int64_t last) {
    std::memset(y.at(first).data, 0, static_cast<size_t>(last - first) * size_of(y.dtype));
  });
}

}  // namespace caravan::cpu
