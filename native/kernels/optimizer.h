// AdamW in 32 bits (PyTorch's order of weight decay) and in 8 bits blockwise (bitsandbytes: Dettmers et al., arXiv
// 2110.02861), gradient norm, and stochastic rounding for bf16 parameters.
#pragma once

#include "kernels/exec.h"

namespace caravan {

struct AdamWOptions {
  float lr = 0.0f;
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float eps = 1e-8f;
  float weight_decay = 0.0f;
  int64_t step = 1;             // counted from 1, for bias correction
  float gradient_scale = 1.0f;  // clipping
  // Device memory: another factor of the gradients, as clip_scale writes it. NaN: the update changes nothing.
  const float* device_gradient_scale = nullptr;
  uint32_t seed = 0;       // stochastic rounding of bf16 parameters: key (seed, step)
  uint32_t parameter = 0;  // index of the parameter tensor, in the counter
  int64_t first = 0;       // where p begins in its tensor, in the counter; a multiple of 4
};

constexpr int64_t adamw8bit_block = 256;
constexpr int64_t adamw8bit_min_size = 4096;  // smaller tensors keep 32-bit state

/// p (count) f32, or bf16 with stochastic rounding; g f32 or bf16; m, v f32. Weight decay before the update (PyTorch).
void adamw_update(const Exec& exec, Ptr p, ConstPtr g, float* m, float* v, int64_t count, const AdamWOptions& options);

/// state1 (count) codes of the signed dynamic map, state2 of the unsigned one; absmax1/2 (ceil(count / 256)) f32.
/// Weight decay after the update, as bitsandbytes. Elements with a non-finite gradient: state set to 0, p unchanged.
void adamw8bit_update(const Exec& exec, Ptr p, ConstPtr g, uint8_t* state1, uint8_t* state2, float* absmax1,
                      float* absmax2, int64_t count, const AdamWOptions& options);

/// Sum of squares in fp64 over blocks of fixed size, added in order. Waits for the device.
double squared_norm(const Exec& exec, ConstPtr g, int64_t count);
/// *sum (device memory) += the same, without waiting.
void squared_norm_add(const Exec& exec, double* sum, ConstPtr g, int64_t count);
/// Clipping without waiting; all in device memory. *norm = sqrt(*squared); *scale = min(1, max_norm / (norm + 1e-6)), as
/// torch.nn.utils.clip_grad_norm_ has it, or 1 where max_norm is 0; NaN where the norm or `*losses`, a sum over the step's
/// losses, is not finite.
void clip_scale(const Exec& exec, float* scale, double* norm, const double* squared, const double* losses,
                float max_norm);

/// y (count) = bf16(x), rounded up with the probability of the remainder by the 16 random bits of element i:
/// philox(seed, step, (i / 4) low, (i / 4) high, stochastic_rounding | parameter, micro).word[i % 4] >> 16.
void stochastic_round(const Exec& exec, bf16* y, const float* x, int64_t count, uint32_t seed, uint32_t step,
                      uint32_t parameter, uint32_t micro);

}  // namespace caravan
