// Writes a GGUF file of version 3: metadata, then tensors one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/io/gguf.h"

namespace caravan {

class GgufWriter {
 public:
  void text(std::string_view key, std::string_view value);
  void u32(std::string_view key, uint32_t value);
  void f32(std::string_view key, float value);
  void boolean(std::string_view key, bool value);
  void texts(std::string_view key, const std::vector<std::string>& values);
  void i32s(std::string_view key, const std::vector<int32_t>& values);
  void f32s(std::string_view key, const std::vector<float>& values);
  /// A key as another file has it, byte for byte. It must be there.
  void copy(std::string_view key, const GgufFile& from);

  /// @param shape outermost first
  /// @param fill makes all bytes of the tensor when it is written
  void tensor(std::string name, GgmlType type, const std::vector<int64_t>& shape,
              std::function<void(std::span<std::byte>)> fill);

  /// Writes and syncs; bytes depend on what was given alone. @throws EngineError disk_full, bad_file
  void write(const std::string& path) const;

 private:
  struct Tensor {
    std::string name;
    GgmlType type;
    std::vector<int64_t> shape;
    uint64_t bytes;
    std::function<void(std::span<std::byte>)> fill;
  };
  void begin(std::string_view key, GgufKind kind);
  void begin_list(std::string_view key, GgufKind kind, uint64_t count);

  std::string values_;
  uint64_t count_ = 0;
  std::vector<Tensor> tensors_;
};

}  // namespace caravan
