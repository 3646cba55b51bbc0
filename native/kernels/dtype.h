// Element types of tensors in memory, and the typed pointers that kernels take.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace caravan {

enum class DType : uint8_t { f32, bf16 };

constexpr size_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

/// Brain float: the upper half of an fp32. Arithmetic is done in fp32; this type only stores.
struct bf16 {
  uint16_t bits;

  bf16() = default;
  /// Rounds to nearest even; NaN stays a (quiet) NaN.
  explicit constexpr bf16(float value) : bits(round_bits(value)) {}
  constexpr operator float() const { return std::bit_cast<float>(uint32_t{bits} << 16); }

  static constexpr bf16 from_bits(uint16_t bits) {
    bf16 result(0.0f);
    result.bits = bits;
    return result;
  }

 private:
  static constexpr uint16_t round_bits(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x0040u);
    return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
};
static_assert(sizeof(bf16) == 2);

/// A typed pointer into the memory of one device. Shapes stand beside it at every use; nothing owns through it.
struct Ptr {
  void* data = nullptr;
  DType dtype = DType::f32;

  Ptr() = default;
  Ptr(void* pointer, DType type) : data(pointer), dtype(type) {}
  Ptr(float* pointer) : data(pointer), dtype(DType::f32) {}
  Ptr(bf16* pointer) : data(pointer), dtype(DType::bf16) {}

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  explicit operator bool() const { return data != nullptr; }
  /// The same array from `elements` on.
  Ptr at(int64_t elements) const {
    return {static_cast<char*>(data) + elements * static_cast<int64_t>(size_of(dtype)), dtype};
  }
};

struct ConstPtr {
  const void* data = nullptr;
  DType dtype = DType::f32;

  ConstPtr() = default;
  ConstPtr(const void* pointer, DType type) : data(pointer), dtype(type) {}
  ConstPtr(const float* pointer) : data(pointer), dtype(DType::f32) {}
  ConstPtr(const bf16* pointer) : data(pointer), dtype(DType::bf16) {}
  ConstPtr(Ptr other) : data(other.data), dtype(other.dtype) {}

  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
  explicit operator bool() const { return data != nullptr; }
  ConstPtr at(int64_t elements) const {
    return {static_cast<const char*>(data) + elements * static_cast<int64_t>(size_of(dtype)), dtype};
  }
};

/// Calls `f.template operator()<T>()` with T = float or bf16.
template <typename F>
decltype(auto) dispatch(DType dtype, F&& f) {
  if (dtype == DType::f32) return f.template operator()<float>();
  return f.template operator()<bf16>();
}

}  // namespace caravan
