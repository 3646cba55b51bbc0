// How a kernel's contribution reaches a parameter's gradient: in place for f32; for bf16 summed in f32 and rounded
// stochastically, since plain rounding loses what is small beside what is already there.
#pragma once

#include "engine/model/layer.h"
#include "kernels/activation.h"
#include "kernels/optimizer.h"

namespace caravan {

/// Calls add(sum) with a pointer to f32 `sum` (count), to which it adds. `part` tells two contributions to one parameter
/// in one micro-batch apart (a tied embedding has them), so that each is rounded by its own random numbers.
template <typename Add>
void add_gradient(const Pass& pass, Parameter& parameter, Add&& add, uint32_t part = 0) {
  if (parameter.gradient.dtype == DType::f32) {
    add(parameter.gradient);
    return;
  }
  ArenaScope scope(*pass.scratch);
  const Ptr sum = pass.scratch->take(DType::f32, parameter.count);
  convert(pass.exec, sum, parameter.gradient, parameter.count);
  add(sum);
  // Counter 0 is the optimizer's own rounding of the same parameter in the same step.
  stochastic_round(pass.exec, parameter.gradient.as<bf16>(), sum.as<float>(), parameter.count, pass.seed, pass.step,
                   parameter.index, 2 * pass.micro + part + 1);
}

}  // namespace caravan
