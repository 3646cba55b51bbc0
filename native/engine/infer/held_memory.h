// How many bytes the calls under way hold, added up over threads.
#pragma once

#include <atomic>
#include <cstddef>

namespace caravan {

/// One call's share of a total, given back at its end.
class HeldMemory {
 public:
  explicit HeldMemory(std::atomic<size_t>& total) : total_(total) {}
  ~HeldMemory() { total_ -= bytes_; }
  HeldMemory(const HeldMemory&) = delete;
  HeldMemory& operator=(const HeldMemory&) = delete;

  void set(size_t bytes) {
    total_ += bytes - bytes_;  // unsigned: a smaller number wraps to a subtraction
    bytes_ = bytes;
  }

 private:
  std::atomic<size_t>& total_;
  size_t bytes_ = 0;
};

}  // namespace caravan
