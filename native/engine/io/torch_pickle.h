// The pickle of a checkpoint, read as data: what it names of storages and tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"

namespace caravan {

/// A tensor as the pickle describes it: nothing of it is checked against the storage.
struct PickledTensor {
  std::string name;
  std::string storage;  // key of its storage among the archive's entries
  StoredType type = StoredType::F32;
  int64_t storage_elements = 0;
  int64_t offset = 0;  // elements into the storage
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // elements
};

/// The tensors of a dictionary by name, in its order.
/// @throws EngineError bad_file naming `path` and what the pickle asks for that rebuilds no tensor
std::vector<PickledTensor> read_torch_pickle(const std::string& path, std::span<const std::byte> pickle);

}  // namespace caravan
