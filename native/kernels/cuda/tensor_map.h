// Tensor maps: how Hopper's copy engine finds a box of an array in global memory.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <initializer_list>

namespace caravan::cuda {

/// Boxes of a contiguous bf16 array of 2 or 3 dimensions, in the 128-byte swizzle; what lies beyond the array is zeros.
/// @param sizes the contiguous dimension first
/// @param box extents of a box, in the same order; the first is 64
CUtensorMap make_tensor_map(const void* data, std::initializer_list<int64_t> sizes, std::initializer_list<int> box);

}  // namespace caravan::cuda
