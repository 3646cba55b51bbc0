// The GGUF format, versions 2 and 3 (ggml's docs/gguf.md): typed metadata and tensors in one file, little-endian. Every
// count, length and offset of a file is checked before it is used.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/io/gguf_blocks.h"
#include "engine/platform/file.h"

namespace caravan {

/// The format's numbers.
enum class GgufKind : uint32_t { u8 = 0, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::F32;
  std::vector<int64_t> shape;  // outermost first, as everywhere else: the file has it the other way round
  uint64_t offset = 0;         // from the start of the file
  uint64_t size = 0;           // bytes

  int64_t elements() const;
};

/// Whether the file begins as a GGUF does; false for what cannot be read.
bool is_gguf_file(const std::string& path);

class GgufFile {
 public:
  /// @throws EngineError bad_file naming the file, the key or tensor, and what is wrong with it.
  static GgufFile open(const std::string& path);

  const std::string& path() const { return path_; }

  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }
  // A value by its key; nothing where the file has no such key. Numbers of any width are taken where they fit.
  // @throws EngineError bad_file where it is of another type.
  std::optional<std::string> text(std::string_view key) const;
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::vector<std::string>> texts(std::string_view key) const;
  std::optional<std::vector<int64_t>> integers(std::string_view key) const;  // a single number counts as a list of one
  std::optional<std::vector<float>> numbers(std::string_view key) const;

  /// Keys of all values, sorted.
  std::vector<std::string> keys() const;
  /// A value as it is stored: for writing it again.
  struct Raw {
    GgufKind kind = GgufKind::u8;  // of the elements, where it is a list
    bool is_list = false;
    uint64_t count = 1;
    std::span<const std::byte> data;
  };
  /// @throws EngineError bad_file where there is none of that key
  Raw raw(std::string_view key) const;

  /// By name.
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }
  /// Null when there is none of that name.
  const GgufTensor* find(std::string_view name) const;
  std::span<const std::byte> bytes(const GgufTensor& tensor) const;

  /// @throws EngineError bad_file: `what` is wrong with this file, in words that follow its path.
  [[noreturn]] void fail(const std::string& what) const;

 private:
  class Parser;
  struct Value {
    GgufKind kind = GgufKind::u8;  // of the elements, where it is a list
    bool is_list = false;
    uint64_t count = 1;
    std::span<const std::byte> data;  // of all elements, checked to be whole
  };
  const Value* value(std::string_view key) const;
  [[noreturn]] void wrong_kind(std::string_view key, const char* wanted) const;

  std::string path_;
  MappedFile file_;
  std::map<std::string, Value, std::less<>> values_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

}  // namespace caravan
