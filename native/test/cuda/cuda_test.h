// What the tests of CUDA kernels share: arrays that lie on both devices, and the comparison of every element of a
// kernel's result with its CPU twin's.
#pragma once

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/cuda_context.h"
#include "kernels/transfer.h"

namespace caravan::test {

/// The device that all tests of one program share.
Exec cuda_exec();
/// The calling thread alone.
inline Exec cpu_exec() { return {}; }

/// `count` elements on the host and on the device. The device's copy begins as poison (NaN, or a large negative
/// integer) until to_device, so that a kernel which leaves elements unwritten is found.
template <typename T>
class TwinArray {
 public:
  explicit TwinArray(int64_t count, bool poison = true) : host_(static_cast<size_t>(count)) {
    device_ = static_cast<T*>(cuda_allocate(std::max<size_t>(host_.size() * sizeof(T), 1)));
    if (poison) this->poison();
  }
  TwinArray(const TwinArray&) = delete;
  TwinArray& operator=(const TwinArray&) = delete;
  ~TwinArray() { cuda_free(device_); }

  int64_t count() const { return static_cast<int64_t>(host_.size()); }
  T* host() { return host_.data(); }
  T* device() { return device_; }
  T& operator[](int64_t i) { return host_[static_cast<size_t>(i)]; }

  /// Makes the device's copy what no kernel writes.
  void poison() {
    const std::vector<unsigned char> bytes(host_.size() * sizeof(T), 0xff);
    upload(cuda_exec(), device_, bytes.data(), bytes.size());
  }
  TwinArray& to_device() {
    upload(cuda_exec(), device_, host_.data(), host_.size() * sizeof(T));
    return *this;
  }
  std::vector<T> from_device() const {
    std::vector<T> values(host_.size());
    download(cuda_exec(), values.data(), device_, values.size() * sizeof(T));
    return values;
  }

  /// Uniform in (-spread, spread), on both sides.
  TwinArray& fill(uint32_t seed, float spread = 1.0f) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-spread, spread);
    for (T& value : host_) value = T(uniform(random));
    return to_device();
  }

 private:
  std::vector<T> host_;
  T* device_ = nullptr;
};

/// Every element of the device's copy against the host's: |a - b| <= relative * max|b| over the tensor, bit for bit
/// where `relative` is 0; `absolute` is allowed beside it where large terms may cancel. NaN never passes.
template <typename T>
void check_equal(TwinArray<T>& array, double relative, const std::string& what, double absolute = 0.0) {
  INFO(what);
  double largest = 0.0;
  for (int64_t i = 0; i < array.count(); ++i) largest = std::max(largest, std::fabs(static_cast<double>(array[i])));
  const std::vector<T> found = array.from_device();
  int64_t wrong = 0;
  for (int64_t i = 0; i < array.count(); ++i) {
    const double a = static_cast<double>(found[static_cast<size_t>(i)]), b = static_cast<double>(array[i]);
    const bool equal = relative == 0.0 ? a == b : std::fabs(a - b) <= std::max(relative * largest, absolute);
    if (!equal && wrong++ == 0) {
      FAIL_CHECK("element " << i << " of " << array.count() << ": " << a << " on the GPU, " << b << " on the CPU");
    }
  }
  CHECK(wrong == 0);
}

}  // namespace caravan::test
