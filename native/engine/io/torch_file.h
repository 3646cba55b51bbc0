// Checkpoints as torch.save writes them since PyTorch 1.6: a ZIP archive of a pickle and of the storages that it names.
// A pickle is a program; this reads the few instructions that rebuild tensors and runs nothing. Whatever else one asks for
// is refused by name, and every size and offset is checked before it is used.
#pragma once

#include <string>

#include "engine/io/safetensors.h"

namespace caravan {

class TorchFile : public TensorFile {
 public:
  /// @throws EngineError bad_file naming the file, the tensor and what is wrong with it.
  static TorchFile open(const std::string& path);
};

}  // namespace caravan
