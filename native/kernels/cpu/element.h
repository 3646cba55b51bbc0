// One element of a typed array, for code where clearness counts and not speed.
#pragma once

#include "kernels/dtype.h"

namespace caravan::cpu {

inline float load_element(ConstPtr p, int64_t i) {
  return p.dtype == DType::f32 ? p.as<float>()[i] : static_cast<float>(p.as<bf16>()[i]);
}

inline void store_element(Ptr p, int64_t i, float value) {
  if (p.dtype == DType::f32) {
    p.as<float>()[i] = value;
  } else {
    p.as<bf16>()[i] = bf16(value);
  }
}

inline float round_to(DType dtype, float value) {
  return dtype == DType::f32 ? value : static_cast<float>(bf16(value));
}

}  // namespace caravan::cpu
