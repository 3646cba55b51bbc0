// An array of either element type, and comparisons of all its elements.
#pragma once

#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/cpu/element.h"

namespace caravan::test {

struct TypedArray {
  DType dtype;
  std::vector<char> bytes;

  TypedArray(DType type, int64_t count) : dtype(type), bytes(static_cast<size_t>(count) * size_of(type)) {}
  /// Normal values of the given spread; a function of the seed.
  TypedArray(DType type, int64_t count, uint32_t seed, float spread = 1.0f) : TypedArray(type, count) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, spread);
    for (int64_t i = 0; i < count; ++i) cpu::store_element(ptr(), i, normal(random));
  }
  TypedArray(DType type, const std::vector<float>& values) : TypedArray(type, static_cast<int64_t>(values.size())) {
    for (size_t i = 0; i < values.size(); ++i) cpu::store_element(ptr(), static_cast<int64_t>(i), values[i]);
  }

  Ptr ptr() { return {bytes.data(), dtype}; }
  ConstPtr ptr() const { return {bytes.data(), dtype}; }
  float* floats() { return reinterpret_cast<float*>(bytes.data()); }
  const float* floats() const { return reinterpret_cast<const float*>(bytes.data()); }
  int64_t count() const { return static_cast<int64_t>(bytes.size() / size_of(dtype)); }
  float operator[](int64_t i) const { return cpu::load_element(ptr(), i); }
};

/// Every element within limit(expected); the first that is not, and how many there are, are named.
inline void check_elements(const std::string& what, int64_t count, const std::function<double(int64_t)>& actual,
                           const std::function<double(int64_t)>& expected, const std::function<double(double)>& limit) {
  int64_t wrong = 0, first = -1;
  for (int64_t i = 0; i < count; ++i) {
    const double a = actual(i), b = expected(i);
    if (a == b || (std::isnan(a) && std::isnan(b)) || std::fabs(a - b) <= limit(b)) continue;
    if (wrong++ == 0) first = i;
  }
  if (wrong > 0) {
    FAIL_CHECK(what << ": " << wrong << " of " << count << " elements differ; element " << first << " is "
                    << actual(first) << ", expected " << expected(first));
  }
}

/// One rounding to `dtype` beside an fp32 sum of `terms` products of values near 1, each addition rounded.
inline std::function<double(double)> rounding_limit(DType dtype, double terms = 1.0) {
  return [=](double expected) {
    const double sum = 1e-7 * (4.0 + terms / 4.0 + (4.0 + std::sqrt(terms)) * std::fabs(expected));
    return dtype == DType::f32 ? sum : sum + std::fabs(expected) / 250.0;
  };
}

}  // namespace caravan::test
