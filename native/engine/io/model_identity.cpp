#include "engine/io/model_identity.h"

#include <algorithm>
#include <cstddef>

#include "engine/io/safetensors.h"
#include "engine/io/sha256.h"

namespace caravan {

namespace {

constexpr size_t chunk_bytes = size_t{16} << 20;

/// Ends in a newline, which no part but the name may hold; the name is closed by its length.
std::string tensor_heading(const TensorInfo& tensor) {
  std::string heading = std::to_string(tensor.name.size());
  heading.append(1, ':').append(tensor.name).append(1, ' ').append(stored_type_name(tensor.type));
  for (const int64_t extent : tensor.shape) heading.append(1, ' ').append(std::to_string(extent));
  heading += '\n';
  return heading;
}

}  // namespace

std::string hash_model(const std::string& dir, const std::function<void(int64_t, int64_t)>& progress) {
  const ModelTensors tensors = ModelTensors::open(dir);
  int64_t total = 0, done = 0;
  for (const auto& [name, entry] : tensors.entries()) total += static_cast<int64_t>(entry.tensor->size);
  Sha256 hash;
  for (const auto& [name, entry] : tensors.entries()) {
    hash.update(tensor_heading(*entry.tensor));
    std::span<const std::byte> bytes = entry.file->bytes(*entry.tensor);
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

}  // namespace caravan
