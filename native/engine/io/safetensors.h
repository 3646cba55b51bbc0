// The safetensors format (huggingface/safetensors): u64 little-endian header length, a JSON header, tensors row-major
// and little-endian without holes. Every size and offset of a file is checked before it is used.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/platform/file.h"
#include "kernels/dtype.h"

namespace caravan {

enum class StoredType : uint8_t { F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, U64, U32, U16, U8, BOOL };
const char* stored_type_name(StoredType type);
size_t stored_type_size(StoredType type);

struct TensorInfo {
  std::string name;
  StoredType type = StoredType::F32;
  std::vector<int64_t> shape;  // empty: a scalar
  uint64_t offset = 0;         // from the start of the file
  uint64_t size = 0;           // bytes

  int64_t elements() const;
};

/// A mapped file of tensors, whatever its format: each is row-major and little-endian in one piece.
class TensorFile {
 public:
  TensorFile(TensorFile&&) = default;
  TensorFile& operator=(TensorFile&&) = default;
  virtual ~TensorFile() = default;
  const std::string& path() const { return path_; }
  /// In the order of their offsets, or of the file's own list.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// Null when there is none of that name.
  const TensorInfo* find(std::string_view name) const;
  /// @throws EngineError bad_file when it is missing.
  const TensorInfo& get(std::string_view name) const;
  std::span<const std::byte> bytes(const TensorInfo& tensor) const;
  /// The bytes as T; the type's size must match. Tensors of other writers may be unaligned: then this throws bad_file.
  template <typename T>
  std::span<const T> as(const TensorInfo& tensor) const {
    return {static_cast<const T*>(aligned(tensor, sizeof(T), alignof(T))), static_cast<size_t>(tensor.elements())};
  }

 protected:
  TensorFile() = default;
  /// False where there is one of that name already.
  bool add(TensorInfo tensor);
  std::string path_;
  MappedFile file_;

 private:
  const void* aligned(const TensorInfo& tensor, size_t size, size_t alignment) const;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
};

class SafetensorsFile : public TensorFile {
 public:
  /// @throws EngineError bad_file naming the file, the tensor and what is wrong with it.
  static SafetensorsFile open(const std::string& path);

  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  std::map<std::string, std::string> metadata_;
};

/// The tensors of a model folder: model.safetensors, the shards of model.safetensors.index.json, or the same of PyTorch's
/// pytorch_model.bin.
class ModelTensors {
 public:
  /// @throws EngineError bad_file when there is neither, a shard is missing, or leaves the folder.
  static ModelTensors open(const std::string& dir);

  struct Entry {
    const TensorFile* file = nullptr;
    const TensorInfo* tensor = nullptr;
  };
  /// Null members when there is none of that name.
  Entry find(std::string_view name) const;
  /// All tensors, by name.
  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }
  uint64_t file_bytes() const;

 private:
  std::vector<std::unique_ptr<TensorFile>> files_;
  std::map<std::string, Entry, std::less<>> entries_;
};

/// Copies a tensor of F64, F32, F16 or BF16 into `out` (elements) of f32 or bf16, rounding to nearest even.
/// @throws EngineError bad_file for integer types.
void read_tensor(const TensorFile& file, const TensorInfo& tensor, Ptr out);

/// What is to be written. `data` is read only while writing.
struct TensorToWrite {
  std::string name;
  StoredType type = StoredType::F32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};

/// Writes and syncs a file whose bytes depend on the arguments alone: tensors by alignment and name, as the reference
/// library lays them out, metadata by key. @throws EngineError disk_full, bad_file
void write_safetensors(const std::string& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata);

/// A tensor whose bytes are made when they are written.
struct TensorToStream {
  std::string name;
  StoredType type = StoredType::F32;
  std::vector<int64_t> shape;
  std::function<void(std::span<std::byte>)> fill;  // all bytes of the tensor

  uint64_t bytes() const;
};

/// As write_safetensors, holding one tensor at a time.
void stream_safetensors(const std::string& path, std::vector<TensorToStream> tensors,
                        const std::map<std::string, std::string>& metadata);

}  // namespace caravan
