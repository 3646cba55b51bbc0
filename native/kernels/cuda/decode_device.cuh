// The instructions that decode_layers.cu is made of, and how numbers change their form between its parts.
#pragma once

#include <cuda_fp16.h>

#include "kernels/cuda/decode_args.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/tensor_cores.cuh"
#include "kernels/cuda/vector.cuh"

namespace caravan::cuda::decode {

#if __CUDA_ARCH__ >= 900

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint64_t* barrier, int phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(phase)
      : "memory");
}
__device__ __forceinline__ void copy_bulk(void* to, const void* from, int bytes, uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}
__device__ __forceinline__ void prefetch(const void* from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }

__device__ __forceinline__ void sync_computing() { asm volatile("bar.sync 1, %0;\n" ::"n"(computing) : "memory"); }

__device__ __forceinline__ void multiply_add_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// What other blocks wrote: past the L1, which does not hear of it.
__device__ __forceinline__ uint4 load_shared_result(const bf16* from) {
  return __ldcg(reinterpret_cast<const uint4*>(from));
}
__device__ __forceinline__ float load_shared_result_one(const bf16* from) {
  return __uint_as_float(static_cast<uint32_t>(__ldcg(reinterpret_cast<const unsigned short*>(from))) << 16);
}
__device__ __forceinline__ float in_bf16(float value) { return static_cast<float>(rounded<bf16>(value)); }
__device__ __forceinline__ float half_of(uint32_t pair, int i) { return i == 0 ? low_half(pair) : high_half(pair); }

__device__ __forceinline__ uint32_t as_halves(float a, float b) {
  const auto clamped = [](float v) { return fminf(fmaxf(v * x_scale, -65504.0f), 65504.0f); };
  const __half2 pair = __floats2half2_rn(clamped(a), clamped(b));
  return *reinterpret_cast<const uint32_t*>(&pair);
}
/// Eight bf16 of W times eight fp16 of x.
__device__ __forceinline__ float dot_8(const uint4& w, const uint4& x, float sum) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t pair = (&w.x)[i], other = (&x.x)[i];
    const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&other));
    sum = fmaf(low_half(pair), v.x, sum);
    sum = fmaf(high_half(pair), v.y, sum);
  }
  return sum;
}

#endif

}  // namespace caravan::cuda::decode
