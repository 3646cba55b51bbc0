// A model's identity: what it is, wherever it lies and however its files are cut.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace caravan {

/// SHA-256, in lower-case hex, over all tensors of a model folder or GGUF file sorted by name: of each its name, type, shape and
/// bytes. Sharding, file order and metadata do not change it.
/// @param progress (done, total bytes), about once every 16 MiB; may be empty
/// @throws EngineError bad_file
std::string hash_model(const std::string& path, const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace caravan
