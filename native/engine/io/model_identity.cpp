#include "engine/io/model_identity.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "engine/io/gguf.h"
#include "engine/io/safetensors.h"
#include "engine/io/sha256.h"

namespace caravan {

namespace {

constexpr size_t chunk_bytes = size_t{16} << 20;

/// A tensor as it is stored.
struct Hashed {
  std::string_view name;
  const char* type;
  std::span<const int64_t> shape;
  std::span<const std::byte> bytes;
};

/// Ends in a newline, which no part but the name may hold; the name is closed by its length.
std::string tensor_heading(const Hashed& tensor) {
  std::string heading = std::to_string(tensor.name.size());
  heading.append(1, ':').append(tensor.name).append(1, ' ').append(tensor.type);
  for (const int64_t extent : tensor.shape) heading.append(1, ' ').append(std::to_string(extent));
  heading += '\n';
  return heading;
}

/// @param tensors by name
std::string hash_tensors(const std::vector<Hashed>& tensors, const std::function<void(int64_t, int64_t)>& progress) {
  int64_t total = 0, done = 0;
  for (const Hashed& tensor : tensors) total += static_cast<int64_t>(tensor.bytes.size());
  Sha256 hash;
  for (const Hashed& tensor : tensors) {
    hash.update(tensor_heading(tensor));
    std::span<const std::byte> bytes = tensor.bytes;
    while (!bytes.empty()) {
      const size_t count = std::min(bytes.size(), chunk_bytes);
      hash.update(bytes.first(count));
      bytes = bytes.subspan(count);
      done += static_cast<int64_t>(count);
      if (progress) progress(done, total);
    }
  }
  return hash.hex();
}

}  // namespace

std::string hash_model(const std::string& path, const std::function<void(int64_t, int64_t)>& progress) {
  std::vector<Hashed> hashed;
  if (is_gguf_file(path)) {
    const GgufFile file = GgufFile::open(path);
    for (const auto& [name, tensor] : file.tensors())
      hashed.push_back({name, ggml_layout(tensor.type).name, tensor.shape, file.bytes(tensor)});
    return hash_tensors(hashed, progress);
  }
  const ModelTensors tensors = ModelTensors::open(path);
  for (const auto& [name, entry] : tensors.entries())
    hashed.push_back(
        {name, stored_type_name(entry.tensor->type), entry.tensor->shape, entry.file->bytes(*entry.tensor)});
  return hash_tensors(hashed, progress);
}

}  // namespace caravan
